"""Moves of the champion's alias: each is written once, in order, also where a kill came between."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from darkroom import history
from darkroom.errors import RecipeError
from darkroom.evaluation.gate import Judgement, Rule
from darkroom.promotion import promote
from darkroom.registry import Version


@dataclass
class Shelf:
    """Versions and aliases in memory, under the registry's names."""

    known: dict[str, Version] = field(default_factory=dict)
    killed: bool = False

    def add(self, number: int) -> Version:
        self.known[str(number)] = Version(
            "digits", str(number), "", {"darkroom.checkpoint": f"c{number}"}, "Words.", ()
        )
        return self.known[str(number)]

    def versions(self, model: str) -> list[Version]:
        return sorted(self.known.values(), key=lambda one: -int(one.version))

    def resolve(self, reference: str) -> Version:
        name = reference.partition("/")[2]
        if name not in self.known:
            raise RecipeError(f"there is no {reference}")
        return self.known[name]

    def with_alias(self, model: str, alias: str) -> Version | None:
        return next((one for one in self.known.values() if alias in one.aliases), None)

    def annotate(
        self, version: Version, *, tags: dict[str, str] | None = None, description: str | None = None
    ) -> Version:
        now = self.known[version.version]
        words = now.description if description is None else description
        self.known[version.version] = replace(now, tags=now.tags | (tags or {}), description=words)
        return self.known[version.version]

    def set_alias(self, version: Version, alias: str) -> Version:
        if self.killed:
            raise KeyboardInterrupt
        for one in self.known.values():
            self.known[one.version] = replace(one, aliases=tuple(name for name in one.aliases if name != alias))
        self.known[version.version] = replace(self.known[version.version], aliases=(alias,))
        return self.known[version.version]


@pytest.fixture
def shelf() -> Shelf:
    made = Shelf()
    for number in (1, 2, 3):
        made.add(number)
    return made


def moves(shelf: Shelf) -> list[tuple[int, str, str, str | None]]:
    found = history.History(
        "digits", tuple(history.Entry(one, {}, (), tuple(history.moves_of(one))) for one in shelf.known.values())
    )
    return [(move.number, move.version, move.who, move.against and move.against.version) for move in found.moves]


def test_promotions_by_hand_are_told_in_order(shelf: Shelf) -> None:
    promote(shelf, "digits", "1", "ada")
    promote(shelf, "digits", "2", "bob", "sharper")
    promote(shelf, "digits", "1", "ada", "the old one again")
    assert moves(shelf) == [(1, "1", "ada", None), (2, "2", "bob", "1"), (3, "1", "ada", "2")]
    (move,) = history.moves_of(shelf.known["2"])
    assert (move.why, move.against) == ("sharper", history.Against("1", "c1"))
    assert move.when.endswith("+00:00")
    assert "Promoted by hand instead of version 1: sharper." in shelf.known["2"].description


def test_what_is_the_champion_already_is_not_moved(shelf: Shelf) -> None:
    promote(shelf, "digits", "1", "ada")
    assert "already" in promote(shelf, "digits", "1", "bob")
    assert len(moves(shelf)) == 1


def test_a_kill_before_the_alias_moved_leaves_one_move(shelf: Shelf) -> None:
    promote(shelf, "digits", "1", "ada")
    shelf.killed = True
    with pytest.raises(KeyboardInterrupt):
        promote(shelf, "digits", "2", "bob")
    shelf.killed = False
    promote(shelf, "digits", "2", "bob")
    assert moves(shelf) == [(1, "1", "ada", None), (2, "2", "bob", "1")]


def test_a_verdict_moves_the_alias_once(shelf: Shelf) -> None:
    told: dict[str, Any] = {"who": history.GATE, "why": "better", "verdict": "d" * 64}
    history.record_move(shelf, shelf.known["2"], champion=shelf.known["1"], **told)
    shelf.set_alias(shelf.known["2"], "champion")
    history.record_move(shelf, shelf.known["2"], champion=shelf.known["2"], **told)  # done again after a kill
    assert moves(shelf) == [(1, "2", "gate", "1")]
    history.record_move(shelf, shelf.known["3"], champion=shelf.known["2"], **told | {"verdict": "e" * 64})
    assert moves(shelf)[1:] == [(2, "3", "gate", "2")]


def test_a_judgement_is_remembered_with_its_interval_and_champion(shelf: Shelf) -> None:
    rule = Rule("frechet", "fd", "held", 1.0, 1.5, 0.5, 0.2, 0.8, 0.1, "better")
    judgement = Judgement("PASS", ("better",), "fd", 0.05, 256, 512, 512, 2048, (rule,))
    judged = history.Judged.of(judgement, shelf.known["1"])
    tagged = shelf.annotate(shelf.known["2"], tags=history.judged_tag("d" * 64, judged))
    tagged = shelf.annotate(tagged, tags={f"{history.JUDGED}mine": "no JSON", f"{history.PROMOTION}mine": "[]"})
    assert history.judged_of(tagged) == [judged]
    assert history.moves_of(tagged) == [], "what people wrote there themselves is passed over"
    assert (judged.gain, judged.low, judged.high, judged.alpha, judged.count) == (0.5, 0.2, 0.8, 0.05, 512)
    assert judged.against == history.Against("1", "c1")
    alone = history.Judged.of(Judgement("FAIL", ("a limit",), "fd"), shelf.known["1"])
    assert (alone.against, alone.alpha) == (None, 0.0), "limits cost no chance"


def test_reasons_fit_into_a_tag(shelf: Shelf) -> None:
    judgement = Judgement("FAIL", tuple("x" * 1000 for _ in range(20)), "fd")
    (text,) = history.judged_tag("d" * 64, history.Judged.of(judgement, None)).values()
    assert len(text) < 5000
    assert len(json.loads(text)["reasons"]) == history.WORDS


def test_what_lies_behind_a_run_leaves_its_own_verdict_out(shelf: Shelf) -> None:
    rule = Rule("frechet", "fd", "held", 1.0, 1.5, 0.5, 0.2, 0.8, 0.1, "better")
    judgement = Judgement("PASS", ("better",), "fd", 0.05, 256, 512, 512, 2048, (rule,))
    judged = history.Judged.of(judgement, shelf.known["1"])
    shelf.annotate(shelf.known["2"], tags=history.judged_tag("d" * 64, judged))
    shelf.annotate(shelf.known["3"], tags=history.judged_tag("e" * 64, judged))
    shelf.annotate(shelf.known["3"], tags=history.judged_tag("f" * 64, judged))
    found = history.past(shelf, "digits", "c3", "f" * 64)
    assert (found.comparisons, found.false_promotions) == (2, 0.1)
    assert len(found.made) == 2, "its own version is not one before it"
    assert history.past(shelf, "digits", "c9", "a" * 64).comparisons == 3
