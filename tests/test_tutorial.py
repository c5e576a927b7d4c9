"""What the tutorial says of its folder is so."""

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from darkroom.collect.manifest import collect
from darkroom.quality.check import gate
from darkroom.reasons import kind_of
from darkroom.recipe import load
from darkroom.store import Store

FOLDER = Path(__file__).parents[1] / "docs/tutorial"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tutorial") / "my-digits"
    script("make_photos").main(made)
    return made


def test_check_refuses_the_seven_faults_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan = load(str(folder / "my-digits.toml"))
    checked = gate(collect(plan.collect, store), plan, store)
    refused = pd.read_parquet(checked.path / "quarantine.parquet")
    accepted = pd.read_parquet(checked.path / "checked.parquet")
    kinds = Counter(kind_of(text) for reasons in refused["reasons"] for text in reasons)
    assert kinds == {"undecodable": 3, "blank": 1, "duplicate": 1, "extreme aspect": 1, "too small": 1}
    assert Counter(accepted["split"]) == {"train": 965, "validation": 235}
    assert accepted["caption"].str.len().gt(0).all(), "captions that are missing are made of the folder's name"


def test_tomorrow_brings_the_other_digits(folder: Path) -> None:
    today, tomorrow = (
        {path.relative_to(folder / name) for path in (folder / name).rglob("*.png")} for name in ("photos", "tomorrow")
    )
    assert not today & tomorrow
    assert (len(today), len(tomorrow)) == (1207, 597)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="is not empty"):
        script("make_photos").main(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_pictures_that_need_no_model_are_those_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = script("draw_pictures")
    monkeypatch.setattr(drawing, "HERE", tmp_path)
    drawing.main([])
    for path in tmp_path.glob("*.png"):
        with drawing.Image.open(path) as made, drawing.Image.open(FOLDER / path.name) as kept:
            assert made.size == kept.size
            difference = max(abs(a - b) for a, b in zip(made.tobytes(), kept.tobytes(), strict=True))
            assert difference <= 16, "other kernels round otherwise; another picture differs by far more"
