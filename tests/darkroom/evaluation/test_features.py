"""Distances are clean-fid's numbers, and named after their extractors."""

from pathlib import Path

import numpy as np
import pytest
from cleanfid import fid
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.evaluation.evaluate import matched_rows
from darkroom.evaluation.features import (
    folder_features,
    frechet,
    frechet_at_equal_count,
    frechet_by_eigenvalues,
    identity,
    load,
)

CLIP = "builtin:clip-digits"


def features(count: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(1).normal(size=(dimensions, dimensions)) / dimensions**0.5
    return random.normal(size=(count, dimensions)) @ mix + shift


def test_it_is_clean_fids_distance() -> None:
    one, other = features(400, 64, 2), features(300, 64, 3, 0.1)
    assert frechet(one, other) == fid.fid_from_feats(one, other)
    assert frechet_by_eigenvalues(one, other) == pytest.approx(fid.fid_from_feats(one, other), rel=1e-6)
    assert frechet(one, one) == pytest.approx(0, abs=1e-8)


def test_fewer_pictures_than_dimensions() -> None:
    one, other = features(20, 64, 2), features(24, 64, 3, 0.1)
    # tr (S R)^(1/2) from the singular values of the centred features' product, without any covariance.
    left, right = ((each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (one, other))
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    shift = one.mean(0) - other.mean(0)
    expected = shift @ shift + (left**2).sum() + (right**2).sum() - 2 * cross
    assert frechet(one, other) == pytest.approx(expected, rel=1e-6)


def test_counts_are_equal_where_distances_are_compared() -> None:
    many, real = features(900, 8, 2), features(300, 8, 3)
    parts = [frechet(many[start : start + 300], real) for start in (0, 300, 600)]
    assert frechet_at_equal_count(many, real) == pytest.approx(np.mean(parts))
    assert frechet_at_equal_count(many[:899], real) == pytest.approx(np.mean(parts[:2]))
    assert frechet_at_equal_count(many[:100], real) == pytest.approx(frechet(many[:100], real[:100]))


def test_real_training_pictures_have_the_labels_of_held_out_ones() -> None:
    offered = ["a", "b", "c"] * 20
    chosen = matched_rows(["a"] * 9 + ["b"] * 3, offered, 0)
    assert sorted(offered[row] for row in chosen) == ["a"] * 9 + ["b"] * 3
    assert len(set(chosen)) == 12
    assert chosen != matched_rows(["a"] * 9 + ["b"] * 3, offered, 1)
    assert len(matched_rows(["z"] * 5, offered, 0)) == 5
    assert len(matched_rows([None] * 100, [None] * 30, 0)) == 100


def test_features_are_in_the_order_of_names_and_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "odd.zip.name"  # clean-fid alone would take it for an archive
    folder.mkdir()
    for index in range(5):
        Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    extractor = load(CLIP, "cpu")
    whole = folder_features(folder, extractor)
    assert whole.shape[0] == 5
    np.testing.assert_allclose(folder_features(folder, extractor, batch=2), whole, rtol=1e-4, atol=1e-4)
    (folder / "0.png").unlink()
    np.testing.assert_allclose(folder_features(folder, extractor), whole[1:], rtol=1e-4, atol=1e-4)


def test_a_distance_is_named_after_its_extractor() -> None:
    measure, digest = identity(CLIP, None)
    assert measure == "fd_clip_digits"
    assert identity(CLIP, digest) == (measure, digest)
    with pytest.raises(RecipeError, match=r"evaluate\.sha256: the weights of .* have sha256"):
        identity(CLIP, "0" * 64)


def test_only_cleanfids_own_file_may_be_called_fid(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"x")
    with pytest.raises(RecipeError, match="must be clean-fid's inception"):
        identity(str(tmp_path / "other.pt"), None)
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"x")
    assert identity(str(tmp_path / "inception-2015-12-05.pt"), None)[0] == "fid"
