"""The history of a model, kept on its versions in the registry and nowhere else.

Three kinds of tags tell it, all JSON: ``darkroom.judged.<verdict>`` for every verdict on a version, with the interval
of its gain over the champion of that time; ``darkroom.promotion.<number>`` for every move of the champion's alias: who
(a user, "gate", or "MLflow" where it was moved on MLflow's page), when, why, and away from which champion; and
``darkroom.refusal.<number>`` for every time that a person refused it. The model itself has ``darkroom.champion``: the
champion that the last of these moves made, so that a move on MLflow's page is noticed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ._registry import cut
from .registry import Registry, Version
from .stability import Trained, trained

if TYPE_CHECKING:
    from .evaluation.gate import Judgement

RUN = "darkroom.run"
"""Tag of a version: the MLflow run of its last evaluation, which has its verdict, report and samples."""
SHARDS = "darkroom.shards"
RECENT = 20  # versions that a run looks back at
JUDGED, PROMOTION, REFUSAL = "darkroom.judged.", "darkroom.promotion.", "darkroom.refusal."
CHAMPION = "darkroom.champion"
"""Tag of a model: the version that is its champion as far as darkroom knows, and the digest of its checkpoint."""
GATE, BY_HAND_IN_MLFLOW = "gate", "MLflow"
CURVES = ("train/", "validation/")  # metrics of a run that are no measures of the finished model
WORDS = 2000  # of a reason at most; MLflow's tags have an end


@dataclass(frozen=True)
class Against:
    """The champion that was compared with, or replaced."""

    version: str
    checkpoint: str


@dataclass(frozen=True)
class Judged:
    """A verdict on a version. Without a comparison (``against`` is None) there is no gain, and ``alpha`` is 0."""

    when: str
    decision: str
    reasons: str
    measure: str
    alpha: float = 0.0
    count: int = 0
    """Pictures of each model that were compared."""
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    wanted: float | None = None
    """The smallest gain worth a change."""
    against: Against | None = None

    @classmethod
    def of(cls, judgement: "Judgement", champion: Version | None) -> "Judged":
        """What is remembered of a judgement; ``champion`` is what the version was compared with."""
        found = cls(now(), judgement.decision, cut("; ".join(judgement.reasons), WORDS), judgement.measure)
        if champion is None or not judgement.rules:
            return found
        first = judgement.rules[0]
        return cls(
            *(found.when, found.decision, found.reasons, found.measure, judgement.alpha, judgement.count),
            *(first.gain, first.low, first.high, first.wanted),
            Against(champion.version, champion.checkpoint),
        )


@dataclass(frozen=True)
class Move:
    """One move of the champion's alias to a version; moves of a model are numbered in their order."""

    number: int
    version: str
    who: str
    when: str
    why: str
    against: Against | None = None
    verdict: str = ""
    """The digest of the verdict that led to it; empty for a move by hand."""
    undoes: int = 0
    """The number of the move that this one rolls back; 0 for any other move."""
    done: bool = True
    """False between its beginning and the moment that it is known to have happened."""


@dataclass(frozen=True)
class Refusal:
    """A person's no to a version that asked to become champion."""

    who: str
    when: str
    why: str
    against: Against | None = None
    """The champion that stayed."""


@dataclass(frozen=True)
class Entry:
    """A version in the history."""

    version: Version
    measures: dict[str, float]
    judged: tuple[Judged, ...]
    moves: tuple[Move, ...]
    refusals: tuple[Refusal, ...] = ()
    made: Trained | None = None
    """What it was made by, beside others; None for one that darkroom did not register."""


@dataclass(frozen=True)
class History:
    """All versions of a model, the newest first."""

    model: str
    entries: tuple[Entry, ...]

    @property
    def moves(self) -> list[Move]:
        """Every move of the alias, in order."""
        return sorted((move for entry in self.entries for move in entry.moves), key=lambda move: move.number)

    @property
    def comparisons(self) -> list[Judged]:
        """Every verdict that a comparison with a champion led to."""
        return [one for entry in self.entries for one in entry.judged if one.against is not None]

    @property
    def made(self) -> list[Trained]:
        """What the versions were made by, the newest first."""
        return [entry.made for entry in self.entries if entry.made is not None]

    @property
    def false_promotions(self) -> float:
        """How many wrong promotions are to be expected at most, had no challenger been better: the sum of alpha."""
        return sum(one.alpha for one in self.comparisons)


@dataclass(frozen=True)
class Past:
    """What lies behind a model before a run's own verdict."""

    made: tuple[Trained, ...] = ()
    """What its last versions were made by, the newest first."""
    comparisons: int = 0
    false_promotions: float = 0.0
    """As in :class:`History`."""


def when(version: Version) -> str:
    """When a version was registered, in UTC."""
    return datetime.fromtimestamp(version.created / 1000, UTC).isoformat(timespec="seconds")


def now() -> str:
    """This moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def judged_tag(verdict: str, judged: Judged) -> dict[str, str]:
    """The tag that remembers a verdict; the same verdict has one tag."""
    return {f"{JUDGED}{verdict[:12]}": json.dumps(asdict(judged), ensure_ascii=False)}


def begin_move(
    registry: Registry,
    version: Version,
    *,
    who: str,
    why: str,
    champion: Version | None,
    verdict: str = "",
    undoes: int = 0,
) -> Move:
    """Write on a version that the champion's alias is about to move to it; it counts once :func:`end_move` said so.

    ``champion``: which version the alias points to yet. What an attempt that was killed wrote is taken away.
    """
    told = [(one, move) for one in registry.versions(version.model) for move in _moves(one)]
    number = 1 + max((move.number for _, move in told if move.done), default=0)
    for one, move in told:
        if not move.done and (one.version, move.number) != (version.version, number):
            forget_move(registry, one, move)
    against = Against(champion.version, champion.checkpoint) if champion else None
    begun = Move(number, version.version, who, now(), cut(why, WORDS), against, verdict, undoes, done=False)
    _write_move(registry, version, begun)
    return begun


def end_move(registry: Registry, version: Version, move: Move) -> Version:
    """Write that the alias moved, on the version and, as what darkroom knows, on the model; returns the version."""
    told = _write_move(registry, version, replace(move, done=True))
    registry.tag_model(version.model, CHAMPION, as_json(Against(version.version, version.checkpoint)))
    return told


def forget_move(registry: Registry, version: Version, move: Move) -> None:
    """Take back what :func:`begin_move` wrote: the alias did not move."""
    registry.annotate(version, tags={_name(move): ""})


def known_champion(registry: Registry, model: str) -> Against | None:
    """The champion that darkroom knows of, from the last move that it made or noticed; None where there was none."""
    page = registry.model(model)
    if page is None:
        return None
    if text := page.tags.get(CHAMPION):
        return Against(**json.loads(text))
    last = newest_move(registry, model)
    found = next((one for one in registry.versions(model) if last and one.version == last.version), None)
    return Against(found.version, found.checkpoint) if found else None


def newest_move(registry: Registry, model: str) -> Move | None:
    """The last move of a model's alias that is on record."""
    found = [move for one in registry.versions(model) for move in moves_of(one)]
    return max(found, key=lambda move: move.number, default=None)


def moves_of(version: Version) -> list[Move]:
    """The moves of the alias to a version, in order."""
    return [move for move in _moves(version) if move.done]


def begun_of(version: Version) -> Move | None:
    """A move to a version that was begun, and of which nobody knows how it ended."""
    return next((move for move in _moves(version) if not move.done), None)


def line_of(moves: Iterable[Move]) -> list[Move]:
    """The moves that made the champions up to the present one, which is the last; what was rolled back is left out.

    So two rollbacks in a row go back two champions, and a rollback is not itself rolled back.
    """
    line: list[Move] = []
    for move in sorted(moves, key=lambda one: one.number):
        if move.undoes:
            line = [one for one in line if one.number < move.undoes]
        if not line or line[-1].version != move.version:
            line.append(move)
    return line


def refusal_tag(refusal: "Refusal", number: int) -> dict[str, str]:
    """The tag that remembers that a person refused a version."""
    return {f"{REFUSAL}{number:04d}": as_json(refusal)}


def refusals_of(version: Version) -> list["Refusal"]:
    """The times that people refused a version, in order."""
    return [Refusal(**found | {"against": _against(found)}) for found in _tags(version, REFUSAL)]


def _moves(version: Version) -> list[Move]:
    """All moves that a version's tags tell of, also those that were only begun."""
    return [Move(**found | {"against": _against(found)}) for found in _tags(version, PROMOTION)]


def _name(move: Move) -> str:
    return f"{PROMOTION}{move.number:04d}"


def _write_move(registry: Registry, version: Version, move: Move) -> Version:
    return registry.annotate(version, tags={_name(move): as_json(move)})


def as_json(value: Any) -> str:
    """A value of this module as its tag has it."""
    return json.dumps(asdict(value), ensure_ascii=False)


def judged_of(version: Version) -> list[Judged]:
    """The verdicts on a version, the oldest first."""
    found = [Judged(**one | {"against": _against(one)}) for one in _tags(version, JUDGED)]
    return sorted(found, key=lambda one: one.when)


def read(registry: Registry, model: str) -> History:
    """The history of a model. Raises :class:`RecipeError` for one that is not registered."""
    known = registry.versions(model)
    if not known:
        registry.resolve(f"{model}/0")  # says what there is instead
    return History(model, tuple(_entry(registry, version) for version in known))


def _entry(registry: Registry, version: Version) -> Entry:
    data = _data(registry, version)
    measures = _measures(data)
    made = trained(data.get("params") or {}, version.tags.get(SHARDS, ""), measures) if version.checkpoint else None
    judged, moves, refusals = _told(version)
    return Entry(version, measures, judged, moves, refusals, made)


def _told(version: Version) -> tuple[tuple[Judged, ...], tuple[Move, ...], tuple[Refusal, ...]]:
    return tuple(judged_of(version)), tuple(moves_of(version)), tuple(refusals_of(version))


def measures_of(registry: Registry, version: Version) -> dict[str, float]:
    """The measures of a version's last evaluation, without the curves of its training."""
    return _measures(_data(registry, version))


def past(registry: Registry, model: str, checkpoint: str, verdict: str) -> Past:
    """What lies behind a model when a checkpoint gets a verdict, these two left out."""
    versions = registry.versions(model)
    others = [one for one in versions if one.checkpoint not in ("", checkpoint)][:RECENT]
    this = f"{JUDGED}{verdict[:12]}"
    earlier = [replace(one, tags={key: text for key, text in one.tags.items() if key != this}) for one in versions]
    alphas = [judged.alpha for one in earlier for judged in judged_of(one) if judged.against is not None]
    made = tuple(made for one in others if (made := _entry(registry, one).made) is not None)
    return Past(made, len(alphas), sum(alphas))


def _data(registry: Registry, version: Version) -> dict[str, Any]:
    """Parameters, metrics and tags of the run of a version's last evaluation."""
    run_id = version.tags.get(RUN) or version.run_id
    found: dict[str, Any] = registry.run(run_id)["data"] if run_id else {}
    return found


def _measures(data: dict[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = data.get("metrics") or {}
    return {name: value for name, value in sorted(metrics.items()) if not name.startswith(CURVES)}


def _tags(version: Version, prefix: str) -> Sequence[dict[str, Any]]:
    """The tags of a kind, in order of their names; what people wrote there themselves is passed over."""
    found = []
    for key in sorted(key for key in version.tags if key.startswith(prefix)):
        try:
            content = json.loads(version.tags[key])
        except ValueError:
            continue
        if isinstance(content, dict):
            found.append(content)
    return found


def _against(found: dict[str, Any]) -> Against | None:
    return Against(**found["against"]) if found.get("against") else None
