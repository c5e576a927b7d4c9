"""Checking: bad rows go to quarantine with their reasons, the rest goes on, and a critical finding stops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from darkroom.artifacts import CheckedManifest, QualityReport
from darkroom.collect.manifest import collect
from darkroom.errors import DataGateRefused, RecipeError
from darkroom.quality import releases
from darkroom.quality.check import find_suite, gate, summary
from darkroom.recipe import Recipe
from darkroom.store import Store
from darkroom.versions.log import latest_report, versions


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


@pytest.fixture
def gated(recipe_for: Callable[..., Recipe]) -> Callable[..., CheckedManifest]:
    """Collects and checks a folder of pictures, as a run does."""

    def run(photos: Path, store: Store, **sections: Any) -> CheckedManifest:
        plan = recipe_for(photos, **sections)
        return gate(collect(plan.collect, store), plan, store)

    return run


def test_what_is_wrong_goes_to_quarantine_and_the_run_goes_on(photos: Path, tmp_path: Path, gated) -> None:
    checked = gated(photos, Store(tmp_path / "store"))
    assert isinstance(checked, CheckedManifest)
    found = summary(checked)
    assert (found["rows"], found["accepted"], found["quarantined"], found["duplicates"]) == (43, 40, 3, 1)
    quarantine = pd.read_parquet(checked.path / "quarantine.parquet").set_index("path")["reasons"]
    assert list(quarantine["copy.bmp"]) == ["check: duplicate: of 00.png"]
    assert list(quarantine["mute.png"]) == ["check: no caption"]
    assert quarantine["cut.png"][0].startswith("check: undecodable: ")
    accepted = pd.read_parquet(checked.path / "checked.parquet")
    assert not set(accepted["path"]) & set(quarantine.index)
    for page in ("docs", "review"):
        assert (checked.path / found[page]).is_file()


def test_copies_share_a_cluster(photos: Path, tmp_path: Path, judged) -> None:
    rows = judged(photos, Store(tmp_path / "store")).set_index("path")
    assert rows.loc["00.png", "duplicate_cluster"] == rows.loc["copy.bmp", "duplicate_cluster"]
    assert rows["duplicate_cluster"].nunique() == 41  # forty, and the one without a caption


def test_a_critical_finding_refuses_and_keeps_the_report(photos: Path, tmp_path: Path, recipe_for) -> None:
    store = Store(tmp_path / "store")
    for path in photos.glob("[0-3]?.png"):
        path.write_bytes(b"broken")
    seen: list[QualityReport] = []
    plan = recipe_for(photos)
    with pytest.raises(DataGateRefused, match="the data was refused") as caught:
        gate(collect(plan.collect, store), plan, store, show=seen.append)
    assert caught.value.exit_status == 3
    for page in ("docs", "review"):
        assert str(seen[0].path / summary(seen[0])[page]) in str(caught.value)
    assert not versions("photos", store)
    assert latest_report("photos", store) == seen[0]


def test_measuring_is_remembered(photos: Path, tmp_path: Path, judged) -> None:
    store = Store(tmp_path / "store")
    first = judged(photos, store)
    for path in (store.root / "pictures").rglob("*"):
        if path.is_file():
            path.write_bytes(b"never opened again")
    pd.testing.assert_frame_equal(first, judged(photos, store))


def test_the_same_batch_is_the_same_version_and_the_next_builds_upon_it(photos: Path, tmp_path: Path, gated) -> None:
    store = Store(tmp_path / "store")
    first = gated(photos, store)
    again = gated(photos, store)
    assert again == first
    assert again.reused
    assert [one.number for one in versions("photos", store)] == [1]
    sides = pd.read_parquet(first.path / "checked.parquet").set_index("row_id")["split"]
    lines = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    lines[5]["text"] = "a new caption"
    Image.effect_noise((16, 16), 90).convert("RGB").save(photos / "new.png")
    lines.append({"file_name": "new.png", "text": "another"})
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    second = gated(photos, store, split={"validation_share": 0.9})
    assert summary(second)["changes"] == {"new": 1, "changed": 1, "gone": 0}
    now = pd.read_parquet(second.path / "checked.parquet").set_index("row_id")["split"]
    assert now.loc[sides.index].equals(sides)  # sticky, whatever the share for new pictures
    assert [one.previous for one in versions("photos", store)] == [None, first.digest]


def test_a_near_copy_of_what_was_accepted_before_joins_its_cluster_and_side(tmp_path: Path, gated) -> None:
    folder, store = tmp_path / "smooth", Store(tmp_path / "store")
    folder.mkdir()
    random = np.random.default_rng(1)
    for index in range(12):
        small = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        detail = random.integers(-40, 40, (96, 128, 3))
        pixels = np.asarray(small.resize((128, 96), Image.Resampling.BICUBIC)).astype(int) + detail
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:02d}.png")
    lines = [{"file_name": f"{index:02d}.png", "text": f"a smooth picture, {index}"} for index in range(12)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sections: dict[str, Any] = {"split": {"validation_share": 0.5}}
    columns = ["duplicate_cluster", "split"]
    before = pd.read_parquet(gated(folder, store, **sections).path / "checked.parquet").set_index("path")[columns]
    for index in range(4):  # the pictures go, and copies of them come under other names
        old = folder / f"{index:02d}.png"
        Image.open(old).convert("RGB").resize((112, 84)).save(folder / f"copy{index}.jpg", quality=70)
        old.unlink()
        lines[index]["file_name"] = f"copy{index}.jpg"
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sections["split"]["validation_share"] = 0.01
    after = pd.read_parquet(gated(folder, store, **sections).path / "checked.parquet").set_index("path")[columns]
    for index in range(4):
        assert tuple(after.loc[f"copy{index}.jpg"]) == tuple(before.loc[f"{index:02d}.png"])


def test_a_released_row_is_used_and_says_so(photos: Path, tmp_path: Path, gated) -> None:
    store = Store(tmp_path / "store")
    sections: dict[str, Any] = {"check": {"licences": ["CC0-1.0"]}}
    checked = gated(photos, store, **sections)
    refused = pd.read_parquet(checked.path / "quarantine.parquet")
    row = refused[refused["path"] == "mute.png"]
    assert "licence not allowed" in " ".join(row["reasons"].iloc[0])
    with pytest.raises(RecipeError, match="no caption cannot be released"):
        releases.release("photos", row, store)
    lines = (photos / "metadata.jsonl").read_text() + '\n{"file_name": "mute.png", "text": "not mute", "license": "x"}'
    (photos / "metadata.jsonl").write_text(lines)
    checked = gated(photos, store, **sections)
    refused = pd.read_parquet(checked.path / "quarantine.parquet")
    releases.release("photos", refused[refused["path"] == "mute.png"], store, who="Ada")
    accepted = pd.read_parquet(gated(photos, store, **sections).path / "checked.parquet").set_index("path")
    assert "released: by Ada" in accepted.loc["mute.png", "flags"][-1]


def test_an_unknown_suite_is_named_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no expectations/nothing\.json; there are .*pictures"):
        find_suite("nothing")
