"""How steady a recipe is: which versions are taken together, and what is said of how many."""

from statistics import stdev

import pytest

from darkroom.stability import LAST, SEEDS, VERSIONS, Trained, rows, steadiness, trained

PARAMS = {"seed": "0", "name": "digits", "train.steps": "640", "gate.alpha": "0.05", "evaluate.count": "1026"}


def made(value: float, shards: str = "s", **changed: str) -> Trained:
    params = PARAMS | {key.replace("__", "."): text for key, text in changed.items()}
    return trained(params, shards, {"fd": value, "fd_train": 0.4, "fd_spread": 0.1, "fd_spread_sets": 3.0})


def test_seeds_are_compared_where_all_else_is_equal() -> None:
    versions = [
        made(1.0, seed="2"),
        made(9.0, seed="3", train__steps="300"),
        made(9.0, seed="4", shards="other data"),
        made(2.0, seed="1", gate__alpha="0.01", name="other"),
        made(4.0, seed="0"),
        made(8.0, seed="2"),
    ]
    (found,) = [one for one in steadiness(versions) if one.over == SEEDS]
    assert (found.measure, found.count) == ("fd", 3), "of the two with seed 2 the newer counts"
    assert found.mean == pytest.approx(7 / 3)
    assert found.spread == pytest.approx(stdev([1.0, 2.0, 4.0]))


def test_the_last_versions_are_compared_whatever_they_were_made_of() -> None:
    versions = [made(float(place), train__steps=str(place)) for place in range(LAST + 3)]
    assert not [one for one in steadiness(versions) if one.over == SEEDS]
    (found,) = [one for one in steadiness(versions) if one.over == VERSIONS]
    assert (found.count, found.mean) == (LAST, 2.0)


def test_one_version_has_no_spread() -> None:
    assert steadiness([]) == []
    assert rows([]) == []
    assert steadiness([made(1.0)]) == []


def test_the_table_says_of_how_many() -> None:
    assert rows([made(1.0, seed="1"), made(2.0), made(3.0, train__steps="1")]) == [
        {"name": "fd", "noise": "± 0.1 (3)", "seeds": "1.5 ± 0.71 (2)", "versions": "2 ± 1 (3)"}
    ]
