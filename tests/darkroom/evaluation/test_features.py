"""Features are clean-fid's, in the order of the pictures, and distances are named after their extractors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid import fid
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from darkroom.errors import RecipeError
from darkroom.evaluation.evaluate import matched_rows
from darkroom.evaluation.features import clip_identity, dimensions, folder_features, identity, load

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


def vision_model(folder: Path, kind: str = "dinov2") -> Path:
    """A tiny vision model with random weights and its image processor, as the hub has them."""
    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    model = (
        Dinov2Model(Dinov2Config(**tiny, patch_size=14))
        if kind == "dinov2"
        else ViTModel(ViTConfig(**tiny, intermediate_size=32, patch_size=14), add_pooling_layer=False)
    )
    model.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessor(**sizes, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return folder


def test_dinov2_is_an_extractor_named_after_its_folder(tmp_path: Path) -> None:
    folder = vision_model(tmp_path / "DINOv2-tiny")
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    for index, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / "pictures" / f"{index}.png")
    measure, digest = identity(str(folder), None)
    extractor = load(str(folder), "cpu")
    assert (measure, extractor.measure, extractor.sha256) == ("fd_dinov2_tiny", "fd_dinov2_tiny", digest)
    assert (extractor.size, dimensions(str(folder))) == (28, 16)
    found = folder_features(tmp_path / "pictures", extractor)
    seen = (pixels / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    own = Dinov2Model.from_pretrained(folder).eval()
    with torch.inference_mode():
        wanted = own(pixel_values=torch.from_numpy(seen).permute(0, 3, 1, 2).float()).pooler_output
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)

    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert identity(str(folder), None)[1] != digest
    with pytest.raises(RecipeError, match=r"evaluate\.sha256: .* not " + digest):
        identity(str(folder), digest)


def test_an_extractor_with_weights_missing_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    lacking = vision_model(tmp_path / "vit", "vit")
    with pytest.raises(RecipeError, match=r"has no pooler.* random numbers"):
        load(str(lacking), "cpu")
    (lacking / "preprocessor_config.json").unlink()
    with pytest.raises(RecipeError, match=r"image processor \(preprocessor_config\.json\)"):
        load(str(lacking), "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"no config\.json of a vision model"):
        dimensions(str(tmp_path / "empty"))


def test_only_a_clip_gives_a_clip_score(tmp_path: Path) -> None:
    assert clip_identity(CLIP, None)[0] == "fd_clip_digits"
    with pytest.raises(RecipeError, match=r"evaluate\.clip = .* is no CLIP model"):
        clip_identity(str(vision_model(tmp_path / "dino")), None)


def test_dimensions_are_known_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"not read")
    assert dimensions(str(tmp_path / "inception-2015-12-05.pt")) == 2048
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "0.png")
    for layer in ("projection", "pooled"):
        assert folder_features(folder, load(CLIP, "cpu", layer)).shape == (1, dimensions(CLIP, layer))


@pytest.mark.parametrize("name", ["inception", "nobody/dinov2-tiny"])
def test_without_internet_it_says_what_cannot_be_had_and_how_to_supply_it(name: str, tmp_path: Path) -> None:
    code = f"""
from darkroom.errors import ServiceUnavailable
from darkroom.evaluation.features import clip_identity, identity
for ask in (identity, clip_identity):
    try:
        ask({name!r}, None)
    except ServiceUnavailable as error:
        print(error)
"""
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_PROXY", "no_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | nowhere | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    distance, score = done.stdout.splitlines()
    if name == "inception":
        assert distance.startswith("FID needs clean-fid's Inception weights, and they could not be downloaded")
        assert "put inception-2015-12-05.pt at" in distance
    else:
        assert distance.startswith("fd_dinov2_tiny cannot be had: nobody/dinov2-tiny is not on this machine")
        assert score.startswith("the CLIP score cannot be had")
        assert "give its path instead of 'nobody/dinov2-tiny'" in score
