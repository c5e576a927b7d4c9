"""The run's page: what it says of each measure, and that hostile text stays text."""

from darkroom.recipe import Gate, Limit
from darkroom.report.page import meaning, measure_rows


def test_every_measure_is_explained() -> None:
    names = [
        "fid",
        "fd_clip_digits",
        "fd_clip_digits_ratio",
        "fd_clip_digits_train",
        "clip_score_digits",
        "nearest_ratio",
    ]
    names += [
        "nearest_train",
        "nearest_train_validation",
        *(f"denoising_{kind}" for kind in ("mse", "rmse", "mae", "r2")),
    ]
    meanings = [meaning(name) for name in names]
    assert all(meanings)
    assert len(set(meanings)) == len(names)
    assert meaning("something else") == ""


def test_limits_stand_beside_their_measures() -> None:
    rows = measure_rows(
        {"b": 2.0, "a": 0.123456}, Gate(limits={"a": Limit(min=0.1, max=1), "b": Limit(max=3)}), {"a": 2.0}
    )
    assert [(row["name"], row["value"], row["limit"], row["champion"]) for row in rows] == [
        ("a", "0.1235", "≥ 0.1 ≤ 1", "2"),
        ("b", "2", "≤ 3", ""),
    ]
