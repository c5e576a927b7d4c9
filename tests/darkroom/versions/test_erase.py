"""What is erased is nowhere in the home folder, and does not come back from a source that still offers it."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from darkroom.artifacts import Evaluation, Reference, Verdict
from darkroom.collect import digits
from darkroom.collect._http_keep import Keeper
from darkroom.collect.manifest import collect, picture_path
from darkroom.errors import InUse
from darkroom.export import export
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import load_side, preprocess
from darkroom.quality import removals
from darkroom.quality.check import gate
from darkroom.quality.picture import thumbnail_path, working_path
from darkroom.store import Store
from darkroom.versions import log
from darkroom.versions.erase import NOTICE, erase
from darkroom.versions.trace import trace

WORDS = "words-that-only-the-erased-one-has"


def removal(picture: str) -> removals.Removal:
    return removals.Removal(picture, None, None, "Ann", "2026-01-01", "they asked", True)


def holders(home: Path, needles: dict[str, bytes]) -> list[tuple[str, str]]:
    """Which files have which of these bytes."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return [(path.name, name) for path in files for name, needle in needles.items() if needle in path.read_bytes()]


def test_nothing_of_an_erased_picture_is_left_or_comes_back(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    photos, home = tmp_path / "photos", tmp_path / "home"
    photos.mkdir()
    lines = []
    for number, item in enumerate(islice(digits.items(), 40)):
        (photos / item.path).write_bytes(item.read())
        lines.append(
            {"file_name": item.path, "text": f"{WORDS} digit" if number == 5 else "a digit", "license": "CC0-1.0"}
        )
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    store = Store(home / "store")
    plan = recipe_for(photos, split={"validation_share": 0.3}, check={"min_side": 2})
    checked = gate(collect(plan.collect, store), plan, store, workers=0)
    shards = preprocess(checked, plan.preprocess, Latents(None), 1, store)

    row = next(one for one in trace(["0005.png"], "photos", store) if one.side)
    assert row.id
    tensors, rows = load_side(shards, str(row.side))
    place = [one["id"] for one in rows].index(row.id)
    pixels = np.ascontiguousarray(tensors["pixels"][place].numpy()).tobytes()
    working = next((store.root / "working").glob(f"*/{_working(store, checked.path, row.id)}"))
    thumbnail = thumbnail_path(store.root, working)
    needles = {
        "bytes": picture_path(store, row.id).read_bytes(),
        "working copy": working.read_bytes(),
        "pixels": pixels,
        "words": WORDS.encode(),
        "thumbnail": thumbnail.read_bytes(),
    }
    inputs = {"shards": shards.digest}
    for kind, name in ((Reference, "r"), (Evaluation, "e")):
        store.get_or_build(
            kind, name * 64, lambda work: (work / "shown.bin").write_bytes(pixels) and None, inputs=inputs
        )
    store.get_or_build(Verdict, "f" * 64, lambda work: None, inputs={"challenger": "e" * 64})
    (home / "reports").mkdir()
    (home / "reports" / f"photos-{'f' * 12}.html").write_bytes(pixels)
    export(checked, store, "imagefolder", home / "export", side="both", pictures="working")
    export(checked, store, "webdataset", home / "tars", side="both", pictures="working")
    assert {name for _, name in holders(home, needles)} == set(needles)
    kept = len(list((home / "export").rglob("*.png")))

    removals.add([removal(row.id)], store)
    with store.in_use(), pytest.raises(InUse):
        erase([row.id], home, store)
    for _ in range(2):  # doing it again does no harm
        erase([row.id], home, store)
        assert holders(home, needles) == []
        assert (checked.path / "review" / "index.html").read_text() == NOTICE
    assert len(list((home / "export").rglob("*.png"))) == kept - 1

    first = log.versions("photos", store)[0]
    assert trace([row.id], "photos", store)[0].version == first  # the facts stay
    assert store.find(type(checked), checked.digest) is not None
    again = gate(collect(plan.collect, store), plan, store, workers=0)
    preprocess(again, plan.preprocess, Latents(None), 1, store)
    assert log.versions("photos", store)[-1].accepted == first.accepted - 1
    assert holders(home, needles) == []


def _working(store: Store, folder: Path, picture: str) -> str:
    import pandas as pd

    table = pd.read_parquet(folder / "checked.parquet")
    key = str(table.set_index("id")["working"][picture])
    assert working_path(store.root, key).is_file()
    return key


def test_a_download_of_an_erased_picture_is_known_and_not_kept(tmp_path: Path) -> None:
    import hashlib

    store, content = Store(tmp_path), b"a picture"
    removals.add([removal(hashlib.sha256(content).hexdigest())], store)
    keeper = Keeper(store, SimpleQueue())
    try:
        for offered, stays in ((content, False), (b"another", True)):
            assert picture_path(store, keeper._write(offered)).is_file() is stays
    finally:
        keeper.close()
