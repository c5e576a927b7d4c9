"""The safety classifier: a real model of transformers, tiny and of chosen weights, judges real files once each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from darkroom.errors import RecipeError
from darkroom.quality import safety
from darkroom.quality.picture import working_path
from darkroom.recipe import Check, Evaluate
from darkroom.store import Store

LABELS = {0: "Drawing", 1: "Neutral", 2: "Porn", 3: "Sexy"}
KEYS = [f"{number:064x}" for number in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with random weights whose last layer is large, so that its scores differ from picture to picture."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    network = ViTForImageClassification(
        ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=8, num_labels=4, id2label=LABELS,
        )
    )  # fmt: skip
    with torch.no_grad():
        network.classifier.weight.normal_(0, 1)
    network.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    random = np.random.default_rng(0)
    for key in KEYS:
        path = working_path(store.root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (1, 1, 3)) + random.integers(-40, 40, (40, 30, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, format="PNG")
    return store


def test_scores_are_those_of_the_model_itself(model: Path, store: Store) -> None:
    found, reasons = safety.judge([*KEYS, None], Check(safety=str(model), safety_limit=0.3), store)
    network = ViTForImageClassification.from_pretrained(model).eval()
    processor = ViTImageProcessor.from_pretrained(model)
    for key, score, why in zip(KEYS, found, reasons, strict=False):
        inputs = processor(images=Image.open(working_path(store.root, key)), return_tensors="pt")
        shares = network(**inputs).logits.softmax(-1)[0].tolist()
        assert score == pytest.approx(shares[2] + shares[3], abs=1e-4)
        assert (why is not None) == (score is not None and score > 0.3)
        assert why is None or why.startswith("check: unsafe picture: ")
    assert (found[-1], reasons[-1]) == (None, None)
    assert len(set(found)) > 3  # the weights do tell pictures apart


def test_a_picture_is_opened_once_for_all_limits_and_classes(model: Path, store: Store) -> None:
    first, _ = safety.judge(KEYS, Check(safety=str(model)), store)
    shutil.rmtree(store.root / "working")
    again, reasons = safety.judge(KEYS, Check(safety=str(model), safety_limit=0.000001), store)
    assert again == first
    assert all(reasons)
    other, _ = safety.judge(KEYS, Check(safety=str(model), safety_labels=("draw", "NEUTRAL")), store)
    for unwanted, wanted in zip(first, other, strict=True):
        assert unwanted is not None
        assert wanted == pytest.approx(1 - unwanted, abs=1e-5)


def test_other_weights_judge_anew(model: Path, store: Store, tmp_path: Path) -> None:
    safety.judge(KEYS, Check(safety=str(model)), store)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    network = ViTForImageClassification.from_pretrained(model)
    with torch.no_grad():
        network.classifier.bias += torch.tensor([0.0, 0.0, 1000.0, 0.0])
    network.save_pretrained(other)
    found, reasons = safety.judge(KEYS, Check(safety=str(other)), store)
    assert found == [1.0] * len(KEYS)
    assert reasons == ["check: unsafe picture: Porn 1.00 > 0.5"] * len(KEYS)


def test_classes_of_which_several_can_hold_are_judged_apart(model: Path, store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    found, _ = safety.judge(KEYS[:1], Check(safety=str(other)), store)
    network = ViTForImageClassification.from_pretrained(model).eval()
    picture = Image.open(working_path(store.root, KEYS[0]))
    inputs = ViTImageProcessor.from_pretrained(model)(images=picture, return_tensors="pt")
    assert found[0] == pytest.approx(float(network(**inputs).logits.sigmoid()[0, 2:].max().detach()), abs=1e-4)


def test_drawn_pictures_are_judged_by_the_same_scores(model: Path, store: Store) -> None:
    paths = [working_path(store.root, key) for key in KEYS]
    scores = sorted(score for score in safety.judge(KEYS, Check(safety=str(model)), store)[0] if score is not None)
    limit = (scores[1] + scores[2]) / 2
    assert safety.unwanted_share(paths, Evaluate(safety=str(model), safety_limit=limit)) == (len(scores) - 2) / len(
        scores
    )
    assert safety.unwanted_share(paths, Evaluate()) is None
    with pytest.raises(RecipeError, match=r"evaluate\.safety_labels: none of gore"):
        safety.unwanted_share(paths, Evaluate(safety=str(model), safety_labels=("gore",)))


def test_without_a_classifier_nothing_is_judged(store: Store) -> None:
    assert safety.judge(KEYS, Check(), store) == ([None] * 6, [None] * 6)
    assert not (store.root / "cache.db").exists()


def broken(model: Path, tmp_path: Path, what: str) -> Path:
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    if what == "config":
        (folder / "config.json").write_text("{}")
    elif what == "kind":
        (folder / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))
    elif what == "pickled":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif what == "processor":
        (folder / "preprocessor_config.json").unlink()
    elif what == "cut":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif what == "headless":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("config", "config.json"),
        ("kind", "not an image classifier"),
        ("pickled", "no weights in safetensors"),
        ("processor", "preprocessor_config.json"),
        ("cut", "cannot be loaded"),
        ("headless", "no weights for classifier"),
    ],
)
def test_what_is_no_classifier_is_named(model: Path, store: Store, tmp_path: Path, what: str, says: str) -> None:
    with pytest.raises(RecipeError, match=r"check\.safety") as caught:
        safety.judge(KEYS, Check(safety=str(broken(model, tmp_path, what))), store)
    assert says in str(caught.value)


def test_classes_that_are_not_there_are_named(model: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match=r"gore.*Drawing, Neutral, Porn, Sexy"):
        safety.judge(KEYS, Check(safety=str(model), safety_labels=("gore",)), store)
