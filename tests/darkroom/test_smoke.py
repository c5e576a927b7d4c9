"""The smoke test before a promotion: every kind of model passes as it is served, and a broken one is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.errors import Unservable
from darkroom.registry import Registry, Version
from darkroom.smoke import draws
from tests.darkroom.diffusion.tiny import MAKERS, vae

SAMPLER = {"sampler": {"steps": 2, "guidance": 1.0, "batch": 4, "threads": 1}}
Register = Callable[[Any], Version]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    home = tmp_path_factory.mktemp("mlflow")
    return Registry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", "tiny")


@pytest.fixture
def registered(registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Register:
    """A pipeline -> a version of it in MLflow."""

    def register(pipe: Any) -> Version:
        folder = tmp_path / "pipeline"
        pipe.save_pretrained(folder)
        (folder / "darkroom.json").write_text(json.dumps(SAMPLER))
        name = "".join(letter if letter.isalnum() else "-" for letter in str(request.node.name))
        run_id = registry.open_run(name, name, {"train": {"prompts": ["a seven"]}})
        return registry.register(name, run_id, folder, checkpoint="c" * 64)

    return register


def made(name: str) -> Any:
    """A pipeline of random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = MAKERS[name]()
    if name == "dit":
        pipe.register_to_config(id2label={0: "tench, Tinca tinca", 1: "goldfish"})
    return pipe


@pytest.mark.parametrize("name", ["stable_diffusion_1", "stable_diffusion_xl", "flux_dev", "dit", "unconditional"])
def test_a_sound_model_passes(registry: Registry, registered: Register, name: str) -> None:
    draws(registry, registered(made(name)))


def test_a_sound_autoencoder_passes(registry: Registry, registered: Register) -> None:
    draws(registry, registered(vae()))


@pytest.mark.parametrize(("name", "value"), [("unet.conv_out", "nan"), ("vae.encoder.conv_in", "inf")])
def test_weights_that_are_no_numbers_are_named(registry: Registry, registered: Register, name: str, value: str) -> None:
    pipe = made("stable_diffusion_1")
    part, _, inner = name.partition(".")
    getattr(pipe, part).get_submodule(inner).bias.data[0] = float(value)
    with pytest.raises(
        Unservable, match=rf"stays what it is: its weights {name}\.bias hold values that are no numbers"
    ):
        draws(registry, registered(pipe))


def test_pictures_of_one_flat_colour_do_not_pass(registry: Registry, registered: Register) -> None:
    pipe = made("stable_diffusion_1")
    pipe.vae.decoder.conv_out.weight.data.zero_()
    with pytest.raises(Unservable, match="each of 4 pictures is one flat colour"):
        draws(registry, registered(pipe))


def test_numbers_that_overflow_while_drawing_do_not_pass(registry: Registry, registered: Register) -> None:
    pipe = made("stable_diffusion_1")
    pipe.unet.conv_out.weight.data.fill_(3e38)
    with pytest.raises(Unservable):
        draws(registry, registered(pipe))


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_files_that_are_gone_or_cut_short_do_not_pass(registry: Registry, registered: Register, damage: str) -> None:
    version = registered(made("unconditional"))
    weights = next(registry.pipeline_folder(version).rglob("*.safetensors"))
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(Unservable, match="cannot be loaded"):
        draws(registry, version)
