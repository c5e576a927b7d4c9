"""Drift: silent where nothing changed, loud where something did, and the same whatever the order of the rows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darkroom.quality import drift


def batch(rows: int, seed: int, brighter: float = 0.0, labels: tuple[float, ...] = (0.25,) * 4) -> pd.DataFrame:
    """Pictures of four kinds, as a table."""
    random = np.random.default_rng(seed)
    looks = np.random.default_rng(0).normal(0, 25, (4, 192))
    pixels = 120 + random.normal(0, 1, (rows, 4)) @ looks + random.normal(0, 20, (rows, 192)) + brighter
    return pd.DataFrame(
        {
            "id": [f"{number:064x}" for number in random.integers(0, 2**62, rows)],
            "width": 512,
            "height": random.choice([384, 512, 768], rows),
            "sharpness": random.lognormal(5, 1, rows),
            "brightness_p99": (random.normal(200, 20, rows) + brighter).clip(0, 255),
            "caption_words": random.poisson(8, rows),
            "caption_tokens": None,
            "label": random.choice(list("abcd"), rows, p=labels),
            "licence": random.choice(["CC0", "CC0-1.0"], rows),
            "caption_language": random.choice(["en", None], rows),
            "descriptor": [row.tobytes().hex() for row in pixels.clip(0, 255).astype(np.uint8)],
        }
    )


def levels(found: drift.Drift) -> dict[str, str]:
    return {one.measure: one.level for one in found.measures}


def test_without_drift_hardly_anything_is_found() -> None:
    """12 comparisons at a rate of 5 % find 3 or more in 2 % of all cases; the seeds are fixed."""
    alarms = sum(drift.compare(batch(150, seed), batch(150, 1000 + seed), seed).level != "none" for seed in range(12))
    assert alarms <= 2


@pytest.mark.parametrize("rows", [120, 1500])
def test_brighter_pictures_are_seen_in_numbers_and_pictures(rows: int) -> None:
    found = levels(drift.compare(batch(rows, 1, brighter=30), batch(rows, 2)))
    assert found["brightness_p99"] == "much"
    assert found["pictures"] != "none"
    assert found["label"] == found["sharpness"] == "none"


def test_other_labels_are_seen_and_named() -> None:
    found = drift.compare(batch(300, 1, labels=(0.7, 0.1, 0.1, 0.1)), batch(300, 2))
    label = next(one for one in found.measures if one.measure == "label")
    assert (label.level, found.level) == ("much", "much")
    assert '"a" has' in label.sentence
    assert levels(found)["licence"] == "none"  # two spellings of one


def test_labels_that_are_all_new_are_seen_however_rare_each_is() -> None:
    one, other = batch(90, 1), batch(90, 2)
    names = [f"class {number // 3}" for number in range(90)]
    found = drift.compare(one.assign(label=names), other.assign(label=[f"new {name}" for name in names]))
    assert levels(found)["label"] == "much"
    again = drift.compare(one.assign(label=names), other.assign(label=names))
    assert levels(again)["label"] == "none"


def test_values_that_vanish_are_seen() -> None:
    found = levels(drift.compare(batch(200, 1).assign(caption_language="en", width=640), batch(200, 2)))
    assert found["caption_language"] == found["width"] == "much"


def test_the_order_of_rows_does_not_matter() -> None:
    new, old = batch(drift.SAMPLE + 500, 1, brighter=4), batch(drift.SAMPLE + 500, 2)
    mixed = drift.compare(new.sample(frac=1, random_state=1), old.sample(frac=1, random_state=2))
    assert mixed == drift.compare(new, old)


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    for old in (None, batch(0, 1)):
        found = drift.compare(batch(50, 1), old)
        found.write(tmp_path / drift.FILE)
        written = json.loads((tmp_path / drift.FILE).read_text())
        assert (written["note"], written["level"], written["measures"]) == (drift.NOTHING, "none", [])
        assert len(found.table()) == 0
        assert "level" in found.table().columns


def test_small_empty_and_gappy_tables_do_not_crash() -> None:
    for new, old in ((batch(0, 1), batch(50, 2)), (batch(5, 1), batch(5, 2)), (batch(50, 1)[["id"]], batch(50, 2))):
        assert drift.compare(new, old).level == "none"
    blank = batch(50, 1).assign(label=None, sharpness=np.nan, descriptor=None)
    assert not {"label", "sharpness", "pictures"} & levels(drift.compare(blank, blank)).keys()


def test_written_numbers_are_those_found(tmp_path: Path) -> None:
    found = drift.compare(batch(200, 1, brighter=30), batch(200, 2))
    found.write(tmp_path / drift.FILE)
    written = json.loads((tmp_path / drift.FILE).read_text())
    assert (written["version"], written["new"], written["old"], written["note"]) == (1, 200, 200, "")
    for line, one in zip(written["measures"], found.measures, strict=True):
        assert set(line) == {"measure", "kind", "psi", "kl", "js", "auc", "statistic", "p_value", "level", "sentence"}
        assert line["p_value"] == pytest.approx(one.p_value, rel=1e-5)
    assert list(found.table()["measure"]) == [line["measure"] for line in written["measures"]]


def test_given_embeddings_are_compared_instead() -> None:
    random = np.random.default_rng(0)
    new, old = batch(100, 1), batch(100, 2)
    features = random.normal(0, 1, (100, 8)), random.normal(0, 1, (100, 8))
    assert levels(drift.compare(new, old, embeddings=features))["pictures"] == "none"
    assert levels(drift.compare(new, old, embeddings=(features[0] + 2, features[1])))["pictures"] == "much"


def test_fresh_rows_are_those_that_the_old_batch_has_not() -> None:
    old = batch(50, 1)
    new = pd.concat([old, batch(20, 2)], ignore_index=True)
    assert list(drift.fresh(new, old)["id"]) == list(new["id"][50:])
    assert len(drift.fresh(new, None)) == 70


def test_indices_are_those_of_their_definitions() -> None:
    new, old = np.array([10, 30, 60, 0]), np.array([30, 30, 30, 10])
    p, q = np.array([0.1, 0.3, 0.6, drift.EPSILON]), np.array([0.3, 0.3, 0.3, 0.1])
    psi, kl, js = drift.indices(new, old)
    assert psi == pytest.approx((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum(), rel=2e-3)
    assert kl == pytest.approx((p * np.log(p / q)).sum(), rel=2e-3)
    from scipy.spatial.distance import jensenshannon

    assert js == pytest.approx(jensenshannon(new, old, base=2) ** 2)
    assert drift.indices(old, old * 7) == (0, 0, 0)
    assert drift.indices(np.array([5, 0]), np.array([0, 5]))[2] == pytest.approx(1)


def test_bins_hold_a_tenth_each_and_see_both_sides_of_a_constant() -> None:
    values = np.random.default_rng(0).normal(0, 1, 10_000)
    counts = np.bincount(np.searchsorted(drift.edges(values), values, side="right"))
    assert len(counts) == drift.BINS
    assert counts.min() > 990
    inner = drift.edges(np.full(50, 512.0))
    assert len(set(np.searchsorted(inner, [511, 512, 513], side="right"))) == 3


def test_holm_is_monotone_and_between_bonferroni_and_nothing() -> None:
    p_values = np.random.default_rng(0).random(20) ** 3
    adjusted = drift.holm(p_values)
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, 20 * p_values) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()
    assert adjusted[np.argmin(p_values)] == pytest.approx(min(1, 20 * p_values.min()))


def test_the_discrepancy_is_that_of_its_definition() -> None:
    random = np.random.default_rng(0)
    new, old = random.normal(0, 1, (15, 3)), random.normal(1, 1, (12, 3))
    both = np.concatenate([new, old])
    distances = ((both[:, None] - both[None]) ** 2).sum(-1)
    scale = np.median(distances[~np.eye(27, dtype=bool)])
    kernel = np.exp(-distances / scale)
    expected = kernel[:15, :15].mean() + kernel[15:, 15:].mean() - 2 * kernel[:15, 15:].mean()
    statistic, p_value, auc = drift.discrepancy(new, old, seed=0)
    assert statistic == pytest.approx(expected, abs=1e-5)
    assert p_value < 0.05
    assert 0.5 <= auc <= 1
    assert drift.discrepancy(np.ones((5, 3)), np.ones((5, 3)), seed=0)[1] == 1
