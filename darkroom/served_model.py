"""The model as MLflow serves it: prompts in, PNG pictures out.

This file is logged beside the weights (MLflow's "models from code") and runs where nothing of darkroom is installed, so
it imports mlflow, diffusers, torch, pandas and the standard library alone. Each logged model keeps its own copy.

What it is asked with: a table with the column ``prompt`` or ``{"prompt": [...]}`` (the class itself also takes bare
texts, which MLflow refuses against a signature with a named column), and the parameters ``seed``, ``steps`` and
``guidance``; 0 steps and a guidance of -1 mean the model's own, which stand in ``darkroom.json`` in the pipeline's
folder. What it answers: the columns ``prompt`` and ``image``, a PNG in base64.
"""

import base64
import hashlib
import importlib.util
import io
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas
from mlflow.pyfunc import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from PIL.Image import Image

# What a pipeline without darkroom.json is drawn with.
DEFAULTS = {"steps": 20, "guidance": 1.0, "batch": 32}


def draw(
    pipe: Any, prompts: list[str], *, seed: int, steps: int, guidance: float, batch: int, first: int = 0
) -> "list[Image]":
    """One picture a prompt; picture ``i`` follows from ``(seed, first + i)``, its prompt and the arguments alone.

    Its noise has its own generator, and the pipeline always sees exactly ``batch`` rows: a shorter chunk repeats its
    last row and the surplus is thrown away. Other shapes take other paths through the kernels, and so give other bits.
    """
    import torch

    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    shape = (pipe.unet.config.in_channels, height, width)
    pipe.set_progress_bar_config(disable=True)
    pictures: list[Image] = []
    for start in range(0, len(prompts), batch):
        chunk = prompts[start : start + batch]
        padding = batch - len(chunk)
        noise = [
            torch.randn(shape, generator=torch.Generator("cpu").manual_seed(_noise_seed(seed, first + start + row)))
            for row in range(len(chunk))
        ]
        latents = torch.stack(noise + noise[-1:] * padding)  # NCHW float32
        answer = pipe(
            prompt=chunk + chunk[-1:] * padding,
            height=height * pipe.vae_scale_factor,
            width=width * pipe.vae_scale_factor,
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=latents.to(pipe.device, pipe.unet.dtype),
            output_type="pil",
        )
        pictures += answer.images[: len(chunk)]
    return pictures


def _noise_seed(seed: int, index: int) -> int:
    """63 bits that belong to this picture alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:8], "big") >> 1


class Painter(PythonModel):  # type: ignore[misc]  # mypy does not look into mlflow
    """A diffusers text-to-image pipeline behind MLflow's ``predict``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the pipeline, on the CPU or the device that ``DARKROOM_DEVICE`` names."""
        from diffusers import DiffusionPipeline

        folder = Path(context.artifacts["pipeline"])
        settings = folder / "darkroom.json"
        found = json.loads(settings.read_text("utf-8")).get("sampler", {}) if settings.is_file() else {}
        self.sampler = DEFAULTS | found
        pipe: Any = DiffusionPipeline.from_pretrained(
            folder, low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None
        )
        self.pipe = pipe.to(os.environ.get("DARKROOM_DEVICE", "cpu"))
        # The scheduler keeps the state of the drawing under way, and a server answers from several threads.
        self.lock = threading.Lock()

    def predict(self, model_input: pandas.DataFrame, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """Draw the prompts of a table."""
        import torch

        prompts = _prompts(model_input)
        asked = params or {}
        steps = int(asked.get("steps") or 0) or int(self.sampler["steps"])
        guidance = float(asked.get("guidance", -1.0))
        with self.lock:
            threads = torch.get_num_threads()
            # Another number of threads gives other last bits.
            torch.set_num_threads(int(self.sampler.get("threads") or threads))
            try:
                pictures = draw(
                    self.pipe,
                    prompts,
                    seed=int(asked.get("seed") or 0),
                    steps=steps,
                    guidance=guidance if guidance >= 0 else float(self.sampler["guidance"]),
                    batch=int(self.sampler["batch"]),
                )
            finally:
                torch.set_num_threads(threads)
        return pandas.DataFrame({"prompt": prompts, "image": [_png(picture) for picture in pictures]})


def _prompts(asked: Any) -> list[str]:
    """The texts of whatever form of input MLflow hands over; of ``{"prompt": [...]}`` it makes one row with a list."""
    if isinstance(asked, str):
        return [asked]
    if isinstance(asked, pandas.DataFrame | dict):
        return _prompts(asked["prompt"])
    if not pandas.api.types.is_list_like(asked):
        raise ValueError(f"a prompt is a text, not {asked!r}")
    return [text for row in asked for text in _prompts(row)]


def _png(picture: "Image") -> str:
    """A picture as PNG in base64."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


mlflow.models.set_model(Painter())
