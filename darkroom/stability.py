"""How steady what a recipe makes is: the spread of its measures over training seeds, and over a model's last versions.

The spread over the noise that pictures are drawn from is a measure of every evaluation (``..._spread``); that of a
training's seed takes several trainings, so it is read off the versions that MLflow has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, get_args

from .store import digest_of

Over = Literal["training seeds", "last versions"]
SEEDS, VERSIONS = get_args(Over)
LAST = 5  # versions
# What a version is made and measured by; where it is registered, how it is judged and what it is called is not.
MADE_BY = ("preprocess.", "model.", "train.", "evaluate.")
NOT_OF_THE_MODEL = ("_train", "_validation", "_spread", "_spread_sets", "memorised_p")


@dataclass(frozen=True)
class Trained:
    """A version as far as steadiness goes."""

    seed: str
    recipe: str
    """A digest of its data and of all that it is made and measured by, but the seed."""
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Steadiness:
    """A measure over several versions."""

    measure: str
    over: Over
    count: int
    mean: float
    spread: float
    """Standard deviation."""


def trained(params: Mapping[str, str], shards: str, measures: Mapping[str, float]) -> Trained:
    """A version from the parameters of its MLflow run, the digest of its shards, and its measures."""
    made_by = {name: value for name, value in params.items() if name.startswith(MADE_BY)}
    return Trained(params.get("seed", ""), digest_of({"params": made_by, "shards": shards}), measures)


def steadiness(newest_first: Sequence[Trained]) -> list[Steadiness]:
    """The spread of every measure of the newest version: over the seeds of its recipe, and over the last versions.

    Of several versions with one seed the newest counts. Where there is but one there is no spread, and no line.
    """
    if not newest_first:
        return []
    newest = newest_first[0]
    seeds = {one.seed: one for one in reversed(newest_first) if one.recipe == newest.recipe and one.seed}
    found = []
    for over, some in ((SEEDS, list(seeds.values())), (VERSIONS, list(newest_first[:LAST]))):
        for name in sorted(newest.measures):
            values = [one.measures[name] for one in some if name in one.measures]
            if len(values) > 1 and not name.endswith(NOT_OF_THE_MODEL):
                found.append(Steadiness(name, over, len(values), fmean(values), stdev(values)))
    return found


def rows(newest_first: Sequence[Trained]) -> list[dict[str, str]]:
    """The same as a table: a row a measure, with "MEAN ± SPREAD (COUNT)" over each, empty where there is none."""
    found: dict[str, dict[str, str]] = {}
    for one in steadiness(newest_first):
        key = "seeds" if one.over == SEEDS else "versions"
        row = found.setdefault(one.measure, {"name": one.measure, "seeds": "", "versions": ""})
        row[key] = f"{one.mean:.4g} ± {one.spread:.2g} ({one.count})"
    noise = newest_first[0].measures if newest_first else {}
    for row in found.values():
        sets = noise.get(f"{row['name']}_spread_sets")
        value = noise.get(f"{row['name']}_spread")
        row["noise"] = "" if value is None or sets is None else f"± {value:.2g} ({sets:.0f})"
    return [found[name] for name in sorted(found)]
