"""Checking: bad rows go to quarantine with their reasons, the rest goes on, and a critical finding stops."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from darkroom.artifacts import CheckedManifest
from darkroom.collect.manifest import collect
from darkroom.errors import DataGateRefused, RecipeError
from darkroom.quality.check import accept, check, find_suite, judge, read_manifest, summary
from darkroom.recipe import Check, Collect, Split
from darkroom.store import Store


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty good pictures, a copy under another name and format, one that is cut short, one without a caption."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for index in range(40):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
        lines.append({"file_name": f"{index:02d}.png", "text": f"noise {index}", "license": "CC0-1.0"})
    Image.open(folder / "00.png").save(folder / "copy.bmp")
    (folder / "cut.png").write_bytes((folder / "01.png").read_bytes()[:300])
    Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "mute.png")
    lines += [{"file_name": "copy.bmp", "text": "noise again"}, {"file_name": "cut.png", "text": "cut"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_what_is_wrong_goes_to_quarantine_and_the_run_goes_on(photos: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    checked = accept(check(collect(Collect(source="folder", path=str(photos)), store), Check(), Split(), store))
    assert isinstance(checked, CheckedManifest)
    found = summary(checked)
    assert (found["rows"], found["accepted"], found["quarantined"], found["duplicates"]) == (43, 40, 3, 1)
    quarantine = pd.read_parquet(checked.path / "quarantine.parquet").set_index("path")["reasons"]
    assert list(quarantine["copy.bmp"]) == ["check: duplicate: of 00.png"]
    assert list(quarantine["mute.png"]) == ["check: no caption"]
    assert quarantine["cut.png"][0].startswith("check: undecodable: ")
    accepted = pd.read_parquet(checked.path / "checked.parquet")
    assert not set(accepted["path"]) & set(quarantine.index)
    assert (checked.path / found["docs"]).is_file()


def test_copies_share_a_cluster(photos: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    rows = judge(
        read_manifest(collect(Collect(source="folder", path=str(photos)), store)),
        Check(),
        Split(),
        store,
        lambda done, total: None,
    ).set_index("path")
    assert rows.loc["00.png", "duplicate_cluster"] == rows.loc["copy.bmp", "duplicate_cluster"]
    assert rows["duplicate_cluster"].nunique() == 41  # forty, and the one without a caption


def test_a_critical_finding_refuses_and_keeps_the_report(photos: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for path in photos.glob("[0-3]?.png"):
        path.write_bytes(b"broken")
    report = check(collect(Collect(source="folder", path=str(photos)), store), Check(), Split(), store)
    with pytest.raises(DataGateRefused, match="the data was refused") as caught:
        accept(report)
    assert caught.value.exit_status == 3
    assert str(report.path / summary(report)["docs"]) in str(caught.value)
    assert (report.path / summary(report)["docs"]).is_file()


def test_measuring_is_remembered(photos: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    rows = read_manifest(collect(Collect(source="folder", path=str(photos)), store))
    first = judge(rows, Check(), Split(), store, lambda done, total: None)
    for path in (store.root / "pictures").rglob("*"):
        if path.is_file():
            path.write_bytes(b"never opened again")
    second = judge(rows, Check(), Split(), store, lambda done, total: None)
    pd.testing.assert_frame_equal(first, second)


def test_an_unknown_suite_is_named_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no expectations/nothing\.json; there are .*pictures"):
        find_suite("nothing")
