"""The split: no leakage, and no picture ever changes sides because others come or go."""

from darkroom.quality.split import side


def test_the_share_is_about_what_was_asked_for() -> None:
    sides = [side(f"cluster {index}", 0, 0.2) for index in range(5000)]
    assert 0.18 < sides.count("validation") / len(sides) < 0.22


def test_a_larger_share_only_adds_to_validation() -> None:
    small = {name for name in map(str, range(500)) if side(name, 0, 0.1) == "validation"}
    large = {name for name in map(str, range(500)) if side(name, 0, 0.3) == "validation"}
    assert small < large


def test_seeds_split_differently() -> None:
    assert [side(str(name), 0, 0.5) for name in range(50)] != [side(str(name), 1, 0.5) for name in range(50)]
