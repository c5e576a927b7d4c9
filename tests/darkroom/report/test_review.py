"""The reviewer's page: everything is counted and shown, nothing that a caption says can run, and it is repeatable."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from darkroom.reasons import reason
from darkroom.report.review import Review, by_kind, descriptors, layout, typical, write

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e'


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    """Forty pictures; the last eight refused, two of them copies of the first."""
    random = np.random.default_rng(0)
    made = []
    for index in range(40):
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(tmp_path / f"{index}.png")
        refused = index >= 32
        made.append(
            {
                "row_id": f"{index:064x}",
                "path": f"{index}.png" if index else HOSTILE,
                "caption": HOSTILE if index < 2 else f"noise {index}",
                "label": HOSTILE if index == 3 else ("a" if index % 2 else "b"),
                "width": 64.0,
                "height": 48.0,
                "sharpness": float(index),
                "entropy": 7.0,
                "brightness_p5": 10.0,
                "brightness_p99": 240.0,
                "saturation": 0.5,
                "caption_words": 2,
                "descriptor": pixels.tobytes().hex(),
                "duplicate_cluster": "c0" if index in (0, 38, 39) else f"c{index}",
                "split": "train" if index % 5 else "validation",
                "reasons": [reason("check", "duplicate" if index > 37 else "blurred", HOSTILE)] if refused else [],
                "flags": [reason("check", "dark")] if index < 4 else [],
                "mended": [],
                "accepted": not refused,
            }
        )
    return pd.DataFrame(made)


def page(rows: pd.DataFrame, folder: Path, **changes: object) -> str:
    review = Review(
        name="photos",
        rows=rows,
        before=None,
        passed=True,
        findings=[{"severity": "warning", "rule": HOSTILE, "observed": HOSTILE}],
        expectations=40,
        docs="../data_docs/index.html",
        picture=lambda row: folder / f"{int(str(row['row_id']), 16)}.png",
    )
    return write(folder / "review" / "index.html", Review(**{**vars(review), **changes})).read_text("utf-8")


def test_what_is_hostile_cannot_run(rows: pd.DataFrame, tmp_path: Path) -> None:
    text = page(rows, tmp_path)
    assert "<script" not in text
    assert not re.search(r"<img[^>]*onerror", text)
    assert "default-src 'none'" in text
    assert set(re.findall(r'(?:src|href)="([^"#d][^"]*)"', text)) == {"../data_docs/index.html"}


def test_every_kind_is_counted_and_shown(rows: pd.DataFrame, tmp_path: Path) -> None:
    text = page(rows, tmp_path)
    for kind, count in (("blurred", 6), ("duplicate", 2)):
        assert re.search(rf"<h3>{kind} <span[^>]*>{count}, by check", text)
    assert "1 cluster of more than one picture" in text
    assert text.count("<strong>kept</strong>") == 1
    assert "data:image/jpeg;base64," in text


def test_the_same_rows_give_the_same_page(rows: pd.DataFrame, tmp_path: Path) -> None:
    assert page(rows, tmp_path) == page(rows, tmp_path)


def test_a_picture_whose_thumbnail_is_kept_is_not_opened_again(rows: pd.DataFrame, tmp_path: Path) -> None:
    def kept(path: Path) -> Path:
        return tmp_path / "thumbnails" / path.name

    plain, first = page(rows, tmp_path), page(rows, tmp_path, kept=kept)
    shown = list((tmp_path / "thumbnails").iterdir())
    assert shown
    for thumbnail in shown:
        (tmp_path / thumbnail.name).write_bytes(b"whoever opens this has no picture")
    assert plain == first == page(rows, tmp_path, kept=kept)
    next(tmp_path.glob("*.png")).unlink()
    assert page(rows, tmp_path, kept=kept) != first, "what was erased is shown no more"


def test_a_batch_is_shown_against_the_last(rows: pd.DataFrame, tmp_path: Path) -> None:
    text = page(rows, tmp_path, before=rows[rows["accepted"]].head(10))
    assert "<polyline" in text
    assert "before: median" in text
    assert "<polyline" not in page(rows, tmp_path)


def test_an_empty_table_and_one_without_pictures_have_a_page(rows: pd.DataFrame, tmp_path: Path) -> None:
    assert "Too few pictures for a map" in page(rows.head(0), tmp_path, passed=False)
    assert "no picture" in page(rows, tmp_path, picture=lambda row: None)


def test_examples_of_a_kind_are_rows_of_that_kind(rows: pd.DataFrame, tmp_path: Path) -> None:
    class Names:
        def tiles(self, some: pd.DataFrame) -> list[dict[str, str]]:
            return [{"path": path} for path in some["path"]]

    found = by_kind(rows, "reasons", Names())
    assert {one["kind"]: [tile["path"] for tile in one["tiles"]] for one in found} == {
        "blurred": [f"{index}.png" for index in range(32, 38)],
        "duplicate": ["38.png", "39.png"],
    }


def test_an_outlier_is_unusual_and_not_typical(rows: pd.DataFrame) -> None:
    rows.loc[5, "descriptor"] = bytes([255] * 96 + [0] * 96).hex()
    near, far = typical(rows), typical(rows, farthest=True)
    assert rows.loc[5, "row_id"] in set(far["row_id"])
    assert rows.loc[5, "row_id"] not in set(near["row_id"])


def test_alike_pictures_lie_together_on_the_map_and_none_hides_another() -> None:
    random = np.random.default_rng(0)
    vectors = np.repeat(random.random((3, 192)), 20, axis=0) + random.normal(0, 0.02, (60, 192))
    places = layout(vectors.astype(np.float32))
    assert len({tuple(place) for place in places.tolist()}) == 60
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    group = np.repeat(np.arange(3), 20)
    same = distance[(group[:, None] == group) & ~np.eye(60, dtype=bool)].mean()
    assert same < 0.8 * distance[group[:, None] != group].mean()


def test_descriptors_are_sampled_by_name(rows: pd.DataFrame) -> None:
    vectors, places = descriptors(rows, limit=10)
    assert vectors.shape == (10, 192)
    assert list(places) == list(range(10))
