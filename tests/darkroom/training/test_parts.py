"""The base: every way to name it is found and has an identity, mistakes are said, and champion is decided once."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.preprocess.latents import Latents
from darkroom.recipe import Recipe
from darkroom.registry import Version
from darkroom.store import Store
from darkroom.training import parts
from darkroom.weights import base as bases
from darkroom.weights import pipelines
from darkroom.weights.base import Name, locate_base, read_name
from darkroom.weights.locate import locate

REPOSITORY = "maker/model"
COMMIT = "a" * 40
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
WANTED = {
    "scheduler/scheduler_config.json": "{}",
    "text_encoder/config.json": "{}",
    "text_encoder/model.safetensors": "text",
    "tokenizer/merges.txt": "m",
    "tokenizer/vocab.json": "{}",
    "unet/config.json": '{"_name_or_path": "somewhere"}',
    "unet/diffusion_pytorch_model.safetensors": "unet",
    "vae/config.json": '{"_name_or_path": "somewhere"}',
    "vae/diffusion_pytorch_model.safetensors": "vae",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What looks like a pipeline from outside."""
    where = tmp_path / "pipeline"
    for name, content in {**WANTED, pipelines.INDEX: json.dumps(INDEX), "README.md": "words"}.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(weights(content) if name.endswith(".safetensors") else content.encode())
    return where


def weights(words: str) -> bytes:
    """A safetensors file that other words make another one."""
    return save({"words": np.frombuffer(words.encode(), np.uint8)})


def recipe(base: str | None, **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {"version": 1, "name": "mine", "collect": {"source": "digits"}, "model": {"base": base}, "train": {"steps": 5}}
        | sections
    )


def test_only_what_the_pipeline_is_loaded_from_is_downloaded() -> None:
    others = [
        "v1-5-pruned.safetensors", "README.md", "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/flax_model.msgpack", "text_encoder/model.onnx", "text_encoder/pytorch_model.bin.index.json",
        "text_encoder/model.fp16-00001-of-00002.safetensors", "text_encoder/model.safetensors.index.fp16.json",
        "vae/diffusion_pytorch_model.fp16.safetensors", "vae_1_0/config.json",
    ]  # fmt: skip
    cut = ["text_encoder/model-00001-of-00002.safetensors", "text_encoder/model.safetensors.index.json"]
    found = pipelines.wanted([*WANTED, *others, *cut, pipelines.INDEX], INDEX)
    assert found == sorted([*WANTED, *cut, pipelines.INDEX])


def test_names_are_told_apart(tmp_path: Path, folder: Path) -> None:
    assert read_name("champion").kind == "champion"
    assert read_name("models:/digits/3").kind == "registered"
    assert read_name("digits@champion").kind == "registered"
    assert read_name("digits/1").kind == "registered"
    assert read_name("maker/1@main").kind == "hub"
    assert read_name(str(folder)) == Name("folder", str(folder))
    assert read_name("stable-diffusion-v1-5").where == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert read_name("maker/model@v2") == Name("hub", "maker/model", "v2")
    (tmp_path / "one.safetensors").write_text("x")
    assert read_name(str(tmp_path / "one.safetensors")).kind == "file"
    for text, words in (("nonsense", "short names are"), (str(tmp_path / "no.safetensors"), "no such file")):
        with pytest.raises(RecipeError, match=words):
            read_name(text)
    (tmp_path / "one.ckpt").write_text("x")
    with pytest.raises(RecipeError, match="pickle"):
        read_name(str(tmp_path / "one.ckpt"))


def test_the_identity_follows_what_is_loaded_alone(folder: Path) -> None:
    first = locate_base(str(folder), "stable-diffusion")
    (folder / "README.md").write_text("other words")
    (folder / "unet/config.json").write_text('{"_name_or_path": "elsewhere"}')
    assert locate_base(str(folder), "stable-diffusion").sha256 == first.sha256
    vae = parts.latents_of(recipe(str(folder))).digest
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(weights("other weights"))
    assert locate_base(str(folder), "stable-diffusion").sha256 != first.sha256
    assert parts.latents_of(recipe(str(folder))).digest == vae, "another denoiser makes no latents anew"
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(weights("other weights!"))
    latents = parts.latents_of(recipe(str(folder)))
    assert isinstance(latents, Latents)
    assert latents.digest != vae


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), r"names vae, but the folder vae/ is not there"),
        (
            lambda folder: shutil.rmtree(folder / "tokenizer") or (folder / "tokenizer").mkdir(),
            "tokenizer/ has no vocab",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").unlink(),
            "scheduler/ has no scheduler_config.json",
        ),
        (lambda folder: (folder / "unet/config.json").unlink(), r"unet/ has no config\.json"),
        (
            lambda folder: cut(folder / "unet/diffusion_pytorch_model.safetensors"),
            r"unet/diffusion_pytorch_model\.safetensors is no whole safetensors file",
        ),
        (lambda folder: (folder / pipelines.INDEX).unlink(), "is not a diffusers pipeline"),
        (lambda folder: (folder / pipelines.INDEX).write_text("{"), "cannot be read"),
        (
            lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").rename(folder / "unet/model.bin"),
            "unet/ holds pickles only",
        ),
        (
            lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").rename(
                folder / "unet/diffusion_pytorch_model.fp16.safetensors"
            ),
            r"no weights in full precision, only diffusion_pytorch_model\.fp16",
        ),
        (
            lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "diffusion_pytorch_model-00002-of-00002.safetensors"}}'
            ),
            "unet/ lacks diffusion_pytorch_model-00002",
        ),
        (
            lambda folder: (folder / pipelines.INDEX).write_text(
                json.dumps({**INDEX, "_class_name": "StableDiffusionXLPipeline"})
            ),
            "set model.family = 'stable-diffusion-xl'",
        ),
        (
            lambda folder: (folder / pipelines.INDEX).write_text(json.dumps({**INDEX, "_class_name": "Unheard"})),
            "is a Unheard.*darkroom knows",
        ),
    ],
)
def test_what_is_no_whole_pipeline_is_said_in_one_sentence(folder: Path, spoil, words: str) -> None:
    spoil(folder)
    with pytest.raises(RecipeError, match=words):
        locate_base(str(folder), "stable-diffusion")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda one: (one / "config.json").unlink(), r"model\.text_encoder = .*: .* has no config\.json"),
        (lambda one: cut(one / "model.safetensors"), r"model\.safetensors is no whole safetensors file"),
        (lambda one: (one / "model.safetensors").unlink(), "has no weights in safetensors"),
        (lambda one: (one / "tokenizer.json").unlink(), "has no tokenizer"),
    ],
)
def test_a_part_of_ones_own_is_looked_at_before_a_run(tmp_path: Path, spoil, words: str) -> None:
    one = tmp_path / "mine"
    shutil.copytree(locate("builtin:digits-text-encoder").path, one)
    plan = recipe(None, model=NAMED | {"base": None, "text_encoder": str(one)})
    parts.look_early(plan)
    spoil(one)
    with pytest.raises(RecipeError, match=words):
        parts.look_early(plan)


SD3 = {"family": "stable-diffusion-3", "text_encoder": "builtin:digits-text-encoder"}
SD3 |= {"vae": "builtin:digits-vae", "text_encoder_2": "builtin:digits-text-encoder"}  # two pixels to a latent


@pytest.mark.parametrize(
    ("model", "cut", "words"),
    [
        (SD3, {"size": 16}, None),
        (SD3 | {"transformer": {"patch_size": 2}}, {"size": 48, "buckets": 3, "bucket_step": 8}, None),
        (
            SD3 | {"transformer": {"patch_size": 3}},
            {"size": 16},
            "size = 16: 2 x 2 pixels make a latent, and 3",
        ),
        (
            SD3 | {"transformer": {"patch_size": 8}},
            {"size": 64, "buckets": 3, "bucket_step": 8},
            "preprocess.bucket_step = 8: .*pixels is no multiple of 16: take 16",
        ),
    ],
)
def test_shapes_that_make_no_whole_tokens_are_refused_before_a_run(model, cut, words: str | None) -> None:
    plan = recipe(None, model=model, preprocess=cut)
    if words is None:
        parts.look_early(plan)
    else:
        with pytest.raises(RecipeError, match=words):
            parts.look_early(plan)


def test_another_kind_of_autoencoder_is_refused_before_a_run(folder: Path, tmp_path: Path) -> None:
    """diffusers' ``AutoencoderKL`` would open it, with weights made up for all that it lacks."""
    config = '{"_class_name": "AutoencoderTiny"}'
    (folder / "vae/config.json").write_text(config)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text(config)
    (tmp_path / "tiny/diffusion_pytorch_model.safetensors").write_bytes(weights("tiny"))
    alone = recipe(None, model=NAMED | {"base": None, "vae": str(tmp_path / "tiny")})
    for plan in (recipe(str(folder)), alone):
        with pytest.raises(
            RecipeError, match="is of the class AutoencoderTiny, and darkroom's latents are those of an"
        ):
            parts.look_early(plan)


def test_a_repository_is_pinned_to_its_commit(monkeypatch, tmp_path: Path, folder: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def commit(repository: str, revision: str | None) -> str:
        asked.append((repository, revision))
        return COMMIT

    monkeypatch.setattr(bases, "_commit", commit)
    pinned = parts.pin(recipe(f"{REPOSITORY}@v2"), "data", None, Store(tmp_path / "store"))
    assert pinned.model.base == f"{REPOSITORY}@{COMMIT}"
    assert asked == [(REPOSITORY, "v2")]
    monkeypatch.setattr(bases, "_here", lambda repository, revision: folder)
    found = parts.parts(pinned)["base"]
    assert found.path == folder
    monkeypatch.setattr(bases, "_commit", lambda repository, revision: "b" * 40)
    assert parts.parts(recipe(REPOSITORY))["base"].sha256 != found.sha256


def test_a_hub_that_is_away_is_said(monkeypatch) -> None:
    import httpx

    def away(*_: object, **__: object) -> None:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", away)
    monkeypatch.setattr(bases, "_here", lambda repository, revision: None)
    bases._commit.cache_clear()
    with pytest.raises(ServiceUnavailable, match="maker/model is not whole on this machine and the hub"):
        locate_base(REPOSITORY, "stable-diffusion")


@dataclass
class Names:
    """A registry that knows one alias."""

    champion: str | None
    asked: int = 0

    def with_alias(self, model: str, alias: str) -> Version | None:
        self.asked += 1
        return Version(model, self.champion, "run", {}, "", (alias,)) if self.champion else None


NAMED = {"base": "champion", "vae": "builtin:digits-vae", "text_encoder": "builtin:digits-text-encoder"}


def test_champion_is_decided_once_for_the_same_data_and_recipe(tmp_path: Path) -> None:
    store, names = Store(tmp_path), Names(None)
    plan = recipe(None, model=NAMED)
    assert parts.pin(plan, "data", names, store).model.base is None, "from scratch while there is none"
    names.champion = "1"
    assert parts.pin(plan, "data", names, store).model.base is None, "its own champion is no reason to train again"
    assert parts.pin(plan, "more data", names, store).model.base == "models:/mine/1"
    names.champion = "2"
    assert parts.pin(plan, "more data", names, store).model.base == "models:/mine/1"
    longer = recipe(None, model=NAMED, train={"steps": 6})
    assert parts.pin(longer, "more data", names, store).model.base == "models:/mine/2"
    shaped = NAMED | {"unet": {"layers_per_block": 1}}
    assert parts.pin(recipe(None, model=shaped), "more data", names, store).model.base == "models:/mine/2"
    judged = recipe(None, model=NAMED, evaluate={"count": 9})
    assert parts.pin(judged, "more data", names, store).model.base == "models:/mine/1", "another judge trains nothing"


def test_an_estimate_decides_nothing_for_the_run(tmp_path: Path) -> None:
    store, names = Store(tmp_path / "store"), Names(None)
    plan = recipe(None, model=NAMED)
    assert parts.pin(plan, "data", names, store, remember=False).model.base is None
    names.champion = "1"
    assert parts.pin(plan, "data", names, store).model.base == "models:/mine/1"


def test_no_champion_and_no_parts_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine has no champion yet: vae and text_encoder must be named"):
        parts.pin(recipe("champion"), "data", Names(None), Store(tmp_path))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": NAMED | {"base": None}, "train": {"steps": 1, "method": "lora"}}, "name one in model.base"),
        ({"train": {"steps": 1, "lora": {"rank": 4}}}, "train.lora does nothing with train.method = 'full'"),
        ({"model": NAMED | {"base": None}, "train": {"steps": 1, "prior": {"prompt": "a dog"}}}, "name model.base"),
        (
            {
                "model": {"base": "a/b", "family": "stable-diffusion-xl"},
                "train": {"steps": 1, "method": "textual-inversion"},
            },
            "use 'lora'",
        ),
        ({"train": {"steps": 1, "prior": {"prompt": "a dog"}}, "preprocess": {"buckets": 2}}, "buckets = 1"),
    ],
)
def test_what_cannot_be_taught_is_refused(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipe("maker/model", **sections)
