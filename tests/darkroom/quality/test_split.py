"""The split: no leakage, and no picture ever changes sides because others come or go."""

import random
from dataclasses import dataclass

import pandas as pd
import pytest

from darkroom.quality.split import HISTORY, Assignment, assign, extend_history, side


def test_the_share_is_about_what_was_asked_for() -> None:
    sides = [side(f"cluster {index}", 0, 0.2) for index in range(5000)]
    assert 0.18 < sides.count("validation") / len(sides) < 0.22


def test_a_larger_share_only_adds_to_validation() -> None:
    small = {name for name in map(str, range(500)) if side(name, 0, 0.1) == "validation"}
    large = {name for name in map(str, range(500)) if side(name, 0, 0.3) == "validation"}
    assert small < large


def test_seeds_split_differently() -> None:
    assert [side(str(name), 0, 0.5) for name in range(50)] != [side(str(name), 1, 0.5) for name in range(50)]


def pictures(*numbers: int) -> pd.DataFrame:
    """Rows of pictures: a picture's number decides its bytes and pixels."""
    return pd.DataFrame(
        {"id": [f"id{n:03d}" for n in numbers], "pixels": [f"px{n:03d}" for n in numbers]}, dtype="str"
    ).assign(phash=None, dhash=None, crops=None)


@dataclass
class World:
    """Pictures of which some pairs are near duplicates, and the history of the versions that were accepted so far.

    ``cluster`` is the reference for what finding duplicates does: connected parts of the present pictures and the
    history's, where a cluster of the history holds together whatever is left of it.
    """

    near: set[tuple[int, int]]
    history: pd.DataFrame | None = None

    def cluster(self, numbers: list[int]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
        past = {} if self.history is None else dict(zip(self.history["pixels"], self.history["cluster"], strict=True))
        parent: dict[str, str] = {}

        def find(one: str) -> str:
            while parent.setdefault(one, one) != one:
                one = parent[one]
            return one

        def join(a: str, b: str) -> None:
            parent[max(find(a), find(b))] = min(find(a), find(b))

        for pixels, name in past.items():
            join(pixels, f"~{name}")  # sorts after every picture
        there = {f"px{n:03d}" for n in numbers} | set(past)
        for a, b in self.near:
            if {f"px{a:03d}", f"px{b:03d}"} <= there:
                join(f"px{a:03d}", f"px{b:03d}")
        names, joined = [], {}
        for number in numbers:
            root = find(f"px{number:03d}")
            olds = tuple(sorted({name for name in past.values() if find(f"~{name}") == root}))
            name = olds[0] if olds else min(f"px{n:03d}" for n in numbers if find(f"px{n:03d}") == root)
            names.append(name)
            joined[name] = olds
        return names, joined

    def version(
        self, numbers: list[int], refused: frozenset[int] = frozenset(), seed: int = 0
    ) -> tuple[dict[int, str], Assignment]:
        """Accept these pictures as the next version; returns the side of every accepted one."""
        table = pictures(*numbers)
        names, joined = self.cluster(numbers)
        found = assign(table, names, joined, self.history, seed, 0.35)
        table = table.assign(duplicate_cluster=names, split=found.side)
        keep = [row for row, n in enumerate(numbers) if row not in found.withdrawn and n not in refused]
        self.history = extend_history(self.history, table.iloc[keep], found.joined, seed)
        return {numbers[row]: str(found.side[row]) for row in keep}, found


@pytest.mark.parametrize("trial", range(25))
def test_over_versions_nothing_leaks_and_nobody_changes_sides(trial: int) -> None:
    dice = random.Random(trial)
    world = World({(a, b) for a in range(40) for b in range(a) if dice.random() < 0.03})
    first_side: dict[int, str] = {}
    for _ in range(7):
        numbers = dice.sample(range(40), dice.randint(1, 30))
        refused = frozenset(n for n in numbers if dice.random() < 0.15)
        sides, found = world.version(numbers, refused)
        for a, b in world.near:
            assert sides.get(a) == sides.get(b) or a not in sides or b not in sides, "near duplicates on both sides"
        for number, which in sides.items():
            assert first_side.setdefault(number, which) == which, "a picture changed sides"
        withdrawn = {numbers[row] for row in found.withdrawn}
        assert all(first_side[number] == "train" for number in withdrawn)
        left_out = set(numbers) - set(sides) - refused - withdrawn
        assert not left_out
        assert all(which == "train" for n, which in first_side.items() if n in withdrawn), "validation never leaves"


@pytest.mark.parametrize("trial", range(5))
def test_the_order_of_rows_decides_nothing(trial: int) -> None:
    dice = random.Random(trial)
    near = {(a, b) for a in range(30) for b in range(a) if dice.random() < 0.04}
    batches = [dice.sample(range(30), 15) for _ in range(4)]
    one, other = World(near), World(near)
    for batch in batches:
        assert one.version(batch)[0] == other.version(sorted(batch))[0]
    pd.testing.assert_frame_equal(one.history, other.history)


def test_pictures_without_duplicates_do_not_notice_others() -> None:
    alone = World(set()).version(list(range(20)))[0]
    crowd = World({(30, 31), (31, 32)})
    crowd.version([30, 32])
    assert {n: which for n, which in crowd.version(list(range(33)))[0].items() if n < 20} == alone


def two_sides() -> tuple[int, int]:
    """A picture that goes to training and one that goes to validation, by the hash of its name alone."""
    sides = World(set()).version(list(range(40)))[0]
    return next(n for n in sides if sides[n] == "train"), next(n for n in sides if sides[n] == "validation")


def test_a_picture_that_joins_both_sides_goes_to_validation_and_training_loses_its_copy_for_good() -> None:
    trained, judged = two_sides()
    world = World({(trained, 50), (judged, 50)})
    assert world.version([trained, judged])[0] == {trained: "train", judged: "validation"}
    sides, found = world.version([trained, judged, 50])
    assert sides == {judged: "validation", 50: "validation"}
    assert found.withdrawn[0].startswith("check: withdrawn from training: ")
    assert found.before == ["train", "validation", None]
    assert world.version([trained, judged])[0] == {judged: "validation"}, "also when what joined them is gone"
    assert world.version([trained])[0] == {}, "also when it comes alone"


def test_a_row_that_joins_a_cluster_follows_its_side_whatever_its_own_name_says() -> None:
    trained, judged = two_sides()
    for old, which in ((trained, "train"), (judged, "validation")):
        for new in range(60, 64):
            world = World({(old, new)})
            world.version([old])
            assert world.version([new])[0] == {new: which}, "also when the picture it resembles is gone"


def test_a_picture_that_was_refused_still_joins_the_clusters() -> None:
    trained, judged = two_sides()
    world = World({(trained, 50), (judged, 50)})
    world.version([trained, judged])
    assert world.version([trained, judged, 50], frozenset({50}))[0] == {judged: "validation"}


def test_another_share_moves_nothing_that_was_assigned() -> None:
    world = World(set())
    before = world.version(list(range(30)))[0]
    names, joined = world.cluster(list(range(30)))
    for share in (0.01, 0.99):
        again = assign(pictures(*range(30)), names, joined, world.history, 0, share)
        assert dict(enumerate(again.side)) == before


def test_another_seed_splits_everything_anew() -> None:
    world = World({(1, 2), (3, 4)})
    world.version(list(range(40)))
    names, joined = world.cluster(list(range(40)))
    anew = assign(pictures(*range(40)), names, joined, world.history, 9, 0.35)
    assert anew.side == [side(name, 9, 0.35) for name in names]
    assert not anew.withdrawn
    sides, _ = world.version(list(range(40)), seed=9)
    assert world.version(list(range(40)), seed=9)[0] == sides, "and is sticky from then on"


def test_a_picture_is_known_by_bytes_or_pixels_also_where_no_cluster_was_found() -> None:
    _, judged = two_sides()
    world = World(set())
    world.version([judged])
    other_file = pictures(judged).assign(id="another file")
    other_decoder = pictures(judged).assign(pixels="other pixels")
    for table in (other_file, other_decoder):
        found = assign(table, ["a new name"], {}, world.history, 0, 0.0001)
        assert found.side == ["validation"]
        assert found.before == ["validation"]
        assert found.joined == {"a new name": (f"px{judged:03d}",)}


def test_a_row_without_a_cluster_has_no_side() -> None:
    table = pd.DataFrame({"id": [None, "x"], "pixels": [None, None]})
    assert assign(table, [None, None], {}, None, 0, 0.1).side == [None, None]


def test_the_history_has_each_picture_once_and_forgets_none() -> None:
    world = World({(1, 2)})
    for batch in ([1, 2, 3], [3, 4], [1], [5, 4]):
        world.version(batch)
    history = world.history
    assert history is not None
    assert list(history.columns) == list(HISTORY)
    assert list(history["pixels"]) == [f"px{n:03d}" for n in (1, 2, 3, 4, 5)]


def test_an_empty_version_keeps_the_history() -> None:
    world = World(set())
    world.version([1, 2])
    before = world.history
    world.version([7], refused=frozenset({7}))
    pd.testing.assert_frame_equal(world.history, before)
