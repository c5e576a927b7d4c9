"""The served model: a tiny, randomly initialised pipeline, registered, loaded and served by a real MLflow."""

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.registry import Registry, Version

SAMPLER = {"steps": 2, "guidance": 1.0, "batch": 4, "threads": 1}
ARGUMENTS: dict[str, Any] = {"seed": 0, "steps": 2, "guidance": 1.0, "batch": 4}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-image pipeline of random weights: 8 x 8 latents, 16 x 16 pictures, one token a byte."""
    import torch
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("checkpoint") / "pipeline"
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer({word: index for index, word in enumerate(words)}, [], model_max_length=16)
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    (folder / "darkroom.json").write_text(json.dumps({"sampler": SAMPLER}))
    return folder


@pytest.fixture(scope="module")
def pipe(pipeline: Path) -> Any:
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)
    return StableDiffusionPipeline.from_pretrained(pipeline, low_cpu_mem_usage=False)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    home = tmp_path_factory.mktemp("mlflow")
    return Registry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", "tiny")


@pytest.fixture(scope="module")
def version(registry: Registry, pipeline: Path) -> Version:
    made = registry.register("tiny", registry.open_run("key", "tiny", {}), pipeline, checkpoint="c" * 64)
    return registry.set_alias(made, "champion")


@pytest.fixture
def tracking(registry: Registry, version: Version) -> Iterator[None]:
    """MLflow's global address, which a user sets who has nothing of darkroom."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registry.uri)
    yield
    mlflow.set_tracking_uri(before)


def draw(pipe: Any, prompts: list[str], **changes: Any) -> list[bytes]:
    from darkroom.served_model import draw

    return [picture.tobytes() for picture in draw(pipe, prompts, **ARGUMENTS | changes)]


def test_a_picture_depends_on_its_seed_index_and_prompt_alone(pipe: Any) -> None:
    prompts = ["zero", "one", "two", "three", "four", "five"]  # more than a batch, and no multiple of it
    pictures = draw(pipe, prompts)
    assert len(set(pictures)) == len(prompts)
    assert draw(pipe, prompts) == pictures
    for count in range(1, len(prompts)):
        assert draw(pipe, prompts[:count]) == pictures[:count]
    for index in range(len(prompts)):
        others = ["another"] * index + [prompts[index]] + ["others"] * 3
        assert draw(pipe, others)[index] == pictures[index]
    assert draw(pipe, prompts[4:], first=4) == pictures[4:]  # 4: whole batches were left out
    assert draw(pipe, []) == []


def test_every_argument_changes_the_pictures(pipe: Any) -> None:
    pictures = draw(pipe, ["zero"])
    for changes in ({"seed": 1}, {"steps": 3}, {"guidance": 4.0}):
        assert draw(pipe, ["zero"], **changes) != pictures
    assert draw(pipe, ["one"]) != pictures


def picture(text: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert (image.format, image.size) == ("PNG", (16, 16))
    return image


@pytest.mark.usefixtures("tracking")
def test_anyone_can_load_the_champion_and_draw(pipe: Any) -> None:
    import mlflow
    import pandas

    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    prompts = ["zero", "one"]
    answer = model.predict(pandas.DataFrame({"prompt": prompts}), params={"seed": 5})
    assert list(answer.columns) == ["prompt", "image"]
    assert list(answer["prompt"]) == prompts
    assert [picture(text).tobytes() for text in answer["image"]] == draw(pipe, prompts, seed=5)

    default = model.predict(pandas.DataFrame({"prompt": prompts}))
    assert list(default["image"]) == list(model.predict({"prompt": prompts}, params={"seed": 0})["image"])
    assert list(default["image"]) != list(answer["image"])
    other = model.predict({"prompt": prompts}, params={"steps": 3, "guidance": 2.0})
    assert [picture(text).tobytes() for text in other["image"]] == draw(pipe, prompts, steps=3, guidance=2.0)


def test_the_registry_loads_the_same_model(registry: Registry, version: Version, pipe: Any) -> None:
    model = registry.load(version)
    answer = model.predict({"prompt": ["zero"]}, params={"seed": 9})
    assert [picture(text).tobytes() for text in answer["image"]] == draw(pipe, ["zero"], seed=9)
    bare = model.unwrap_python_model()  # without MLflow's check of the input against the signature
    for texts in ("zero", ["zero"], [{"prompt": "zero"}]):
        assert list(bare.predict(texts, {"seed": 9})["image"]) == list(answer["image"])
    with pytest.raises(ValueError, match="a prompt is a text, not None"):
        bare.predict(["zero", None])


def test_the_logged_pipeline_is_a_diffusers_pipeline(registry: Registry, version: Version, pipe: Any) -> None:
    from diffusers import DiffusionPipeline

    logged = DiffusionPipeline.from_pretrained(registry.pipeline_folder(version), low_cpu_mem_usage=False)
    assert draw(logged, ["zero", "one"]) == draw(pipe, ["zero", "one"])


def test_a_pipeline_without_settings_is_drawn_with_the_defaults(pipeline: Path, tmp_path: Path) -> None:
    from mlflow.pyfunc import PythonModelContext

    from darkroom.served_model import DEFAULTS, Painter

    bare = tmp_path / "pipeline"
    shutil.copytree(pipeline, bare)
    (bare / "darkroom.json").unlink()
    painter = Painter()
    painter.load_context(PythonModelContext({"pipeline": str(bare)}, {}))
    assert painter.sampler == DEFAULTS == {"steps": 20, "guidance": 1.0, "batch": 32}


def test_nothing_of_darkroom_is_needed(registry: Registry, version: Version, tmp_path: Path) -> None:
    code = (registry.model_folder(version) / "served_model.py").read_text()
    assert code == (Path(__file__).parents[2] / "darkroom" / "served_model.py").read_text()
    assert "import darkroom" not in code
    assert "from darkroom" not in code
    assert "from ." not in code


@contextlib.contextmanager
def serving(registry: Registry, log: Path) -> Iterator[str]:
    """MLflow's scoring server for the champion, ended with all its children."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/tiny@champion",
        "--env-manager",
        "local",
    ]
    environment = os.environ | {"MLFLOW_TRACKING_URI": registry.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    # Where nothing of darkroom can be imported; mlflow starts `python` by name.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "--host", "127.0.0.1", "-p", port],
            cwd=log.parent, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + 180
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_mlflow_models_serve(registry: Registry, version: Version, pipe: Any, tmp_path: Path) -> None:
    question = {"dataframe_split": {"columns": ["prompt"], "data": [["zero"], ["one"]]}, "params": {"seed": 5}}
    with serving(registry, tmp_path / "serve.log") as address:
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            rows = json.load(response)["predictions"]
    assert [row["prompt"] for row in rows] == ["zero", "one"]
    assert [picture(row["image"]).tobytes() for row in rows] == draw(pipe, ["zero", "one"], seed=5)
