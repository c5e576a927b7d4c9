"""Features are clean-fid's, in the order of the pictures, and distances are named after their extractors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid import fid
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.evaluation.evaluate import matched_rows
from darkroom.evaluation.features import folder_features, identity, load

CLIP = "builtin:clip-digits"


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


class Tower(torch.nn.Module):
    """Random weights in the place of Inception's: the file, its input and its output are those of the real one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(768, 2048), torch.nn.Tanh()
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels)


def test_features_of_inception_are_clean_fids(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(Tower()).save(str(weights))
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index, size in enumerate([(20, 33), (299, 299), (640, 400), (31, 500)]):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    theirs = fid.get_folder_features(
        str(folder),
        InceptionV3W(str(tmp_path), download=False),
        num_workers=0,
        device=torch.device("cpu"),
        mode="clean",
        verbose=False,
    )
    found = load(str(weights), "cpu")
    assert found.measure == "fid"
    np.testing.assert_allclose(folder_features(folder, found), theirs, rtol=1e-6, atol=1e-7)
