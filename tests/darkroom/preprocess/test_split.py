"""The split: no leakage, and no picture ever changes sides because others come or go."""

import pandas as pd
import pytest

from darkroom.errors import RecipeError
from darkroom.preprocess.shards import split
from darkroom.preprocess.split import side
from darkroom.recipe import Preprocess


def test_the_share_is_about_what_was_asked_for() -> None:
    sides = [side(f"cluster {index}", 0, 0.2) for index in range(5000)]
    assert 0.18 < sides.count("validation") / len(sides) < 0.22


def test_a_larger_share_only_adds_to_validation() -> None:
    small = {name for name in map(str, range(500)) if side(name, 0, 0.1) == "validation"}
    large = {name for name in map(str, range(500)) if side(name, 0, 0.3) == "validation"}
    assert small < large


def test_seeds_split_differently() -> None:
    assert [side(str(name), 0, 0.5) for name in range(50)] != [side(str(name), 1, 0.5) for name in range(50)]


def rows(clusters: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [f"{i:02x}" for i in range(len(clusters))], "row_id": clusters, "duplicate_cluster": clusters}
    )


def test_a_cluster_is_on_one_side_and_the_order_of_rows_does_not_matter() -> None:
    table = rows([f"cluster {index // 3}" for index in range(60)])
    plan = Preprocess(size=16, validation_share=0.4)
    made = split(table, plan)
    assert (made.groupby("duplicate_cluster")["split"].nunique() == 1).all()
    pd.testing.assert_frame_equal(split(table.iloc[::-1], plan), made)


def test_an_empty_side_is_said() -> None:
    with pytest.raises(RecipeError, match=r"of the 1 accepted pictures fell on the .* side"):
        split(rows(["only"]), Preprocess(size=16))
