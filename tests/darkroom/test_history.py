"""What is remembered of verdicts and moves, and how it is read back."""

import json
from dataclasses import replace
from typing import cast

import pytest

from darkroom import history
from darkroom.evaluation.gate import Judgement, Rule
from darkroom.history import Move
from darkroom.registry import Registry, Version

FIRST = Version("digits", "1", "", {"darkroom.checkpoint": "c1"}, "Words.", ())
SECOND = Version("digits", "2", "", {"darkroom.checkpoint": "c2"}, "Words.", ())


def test_a_judgement_is_remembered_with_its_interval_and_champion() -> None:
    rule = Rule("frechet", "fd", "held", 1.0, 1.5, 0.5, 0.2, 0.8, 0.1, "better")
    judgement = Judgement("PASS", ("better",), "fd", 0.05, 256, 512, 512, 2048, (rule,))
    judged = history.Judged.of(judgement, FIRST)
    people = {f"{history.JUDGED}mine": "no JSON", f"{history.PROMOTION}mine": "[]"}
    tagged = replace(SECOND, tags=SECOND.tags | history.judged_tag("d" * 64, judged) | people)
    assert history.judged_of(tagged) == [judged]
    assert history.moves_of(tagged) == [], "what people wrote there themselves is passed over"
    assert (judged.gain, judged.low, judged.high, judged.alpha, judged.count) == (0.5, 0.2, 0.8, 0.05, 512)
    assert judged.against == history.Against("1", "c1")
    alone = history.Judged.of(Judgement("FAIL", ("a limit",), "fd"), FIRST)
    assert (alone.against, alone.alpha) == (None, 0.0), "limits cost no chance"


def test_reasons_fit_into_a_tag() -> None:
    judgement = Judgement("FAIL", tuple("x" * 1000 for _ in range(20)), "fd")
    (text,) = history.judged_tag("d" * 64, history.Judged.of(judgement, None)).values()
    assert len(text) < 5000
    assert len(json.loads(text)["reasons"]) == history.WORDS


class Shelf:
    """A registry that has versions and nothing else."""

    def __init__(self, *versions: Version) -> None:
        self._versions = versions

    def versions(self, model: str) -> list[Version]:
        return list(self._versions)


def test_what_lies_behind_a_run_leaves_its_own_verdict_out() -> None:
    rule = Rule("frechet", "fd", "held", 1.0, 1.5, 0.5, 0.2, 0.8, 0.1, "better")
    judgement = Judgement("PASS", ("better",), "fd", 0.05, 256, 512, 512, 2048, (rule,))
    judged = history.Judged.of(judgement, FIRST)
    second = replace(SECOND, tags=SECOND.tags | history.judged_tag("d" * 64, judged))
    both = history.judged_tag("e" * 64, judged) | history.judged_tag("f" * 64, judged)
    third = Version("digits", "3", "", {"darkroom.checkpoint": "c3"} | both, "Words.", ())
    shelf = cast(Registry, Shelf(third, second, FIRST))
    found = history.past(shelf, "digits", "c3", "f" * 64)
    assert (found.comparisons, found.false_promotions) == (2, 0.1)
    assert len(found.made) == 2, "its own version is not one before it"
    assert history.past(shelf, "digits", "c9", "a" * 64).comparisons == 3


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ([], []),
        ([("1", 0), ("2", 0)], ["1", "2"]),
        ([("1", 0), ("2", 0), ("1", 0)], ["1", "2", "1"]),  # promoted again, which is no rollback
        ([("1", 0), ("2", 0), ("3", 0), ("2", 3)], ["1", "2"]),
        ([("1", 0), ("2", 0), ("3", 0), ("2", 3), ("1", 2)], ["1"]),
        ([("1", 0), ("2", 0), ("1", 2), ("3", 0)], ["1", "3"]),
        ([("1", 0), ("3", 3), ("4", 0)], ["1", "3", "4"]),  # what it undoes was deleted with its version
    ],
)
def test_the_line_of_champions_leaves_out_what_was_rolled_back(told: list[tuple[str, int]], line: list[str]) -> None:
    moves = [Move(place, version, "ada", "", "", undoes=undoes) for place, (version, undoes) in enumerate(told, 1)]
    assert [move.version for move in history.line_of(reversed(moves))] == line
