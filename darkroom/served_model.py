"""The model as MLflow serves it: prompts in, PNG pictures out.

This file is logged beside the weights (MLflow's "models from code") and runs where nothing of darkroom is installed, so
it imports mlflow, diffusers, torch, pandas and the standard library alone. Each logged model keeps its own copy.

What it is asked with: a table with the column ``prompt`` or ``{"prompt": [...]}`` (the class itself also takes bare
texts, which MLflow refuses against a signature with a named column), and the parameters ``seed``, ``steps`` and
``guidance``; 0 steps and a guidance of -1 mean the model's own, which stand in ``darkroom.json`` in the pipeline's
folder. What it answers: the columns ``prompt`` and ``image``, a PNG in base64.

A prompt is a text; for models that know classes, a label of theirs; and models that are asked for nothing ignore it.
"""

import base64
import hashlib
import importlib.util
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas
from mlflow.pyfunc import PythonModel, PythonModelContext

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# What a pipeline without darkroom.json is drawn with.
DEFAULTS = {"steps": 20, "guidance": 1.0, "batch": 32}


def draw(
    pipe: Any, prompts: list[str], *, seed: int, steps: int, guidance: float, batch: int, first: int = 0
) -> "list[Image]":
    """One picture a prompt; picture ``i`` follows from ``(seed, first + i)``, its prompt and the arguments alone.

    Its noise has its own generator, and the pipeline always sees exactly ``batch`` rows: a shorter chunk repeats its
    last row and the surplus is thrown away. Other shapes take other paths through the kernels, and so give other bits.
    Raises ``ValueError`` for a pipeline of another class than :data:`CLASSES` has, and for labels that it has not.
    """
    import torch

    name = type(pipe).__name__
    if name not in CLASSES:
        raise ValueError(f"this model is a {name}; pictures can be drawn from {', '.join(CLASSES)}")
    paint, noise_shape = CLASSES[name]
    shape = noise_shape(pipe)
    if paint is _by_label:
        _classes(pipe, prompts)  # all of them, before the first is drawn
    pipe.set_progress_bar_config(disable=True)
    pictures: list[Image] = []
    for start in range(0, len(prompts), batch):
        chunk = prompts[start : start + batch]
        padding = batch - len(chunk)
        noise = [
            torch.randn(shape, generator=torch.Generator("cpu").manual_seed(_noise_seed(seed, first + start + row)))
            for row in range(len(chunk))
        ]
        latents = torch.stack(noise + noise[-1:] * padding).to(pipe.device, _denoiser(pipe).dtype)  # NCHW
        with torch.inference_mode():
            pictures += paint(pipe, chunk + chunk[-1:] * padding, latents, steps, guidance)[: len(chunk)]
    return pictures


def _denoiser(pipe: Any) -> Any:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def _own_shape(pipe: Any) -> tuple[int, int, int]:
    """CHW of the noise, as the denoiser's configuration has it."""
    config = _denoiser(pipe).config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return config.in_channels, height, width


def _flux_shape(pipe: Any) -> tuple[int, int, int]:
    """CHW of the noise before it is packed; the side is that of the autoencoder's pictures."""
    side = pipe.vae.config.sample_size // pipe.vae_scale_factor
    return pipe.transformer.config.in_channels // 4, side, side


def _by_prompt(pipe: Any, prompts: list[str], noise: "torch.Tensor", steps: int, guidance: float) -> "list[Image]":
    """Stable Diffusion 1 to 3, and XL."""
    answer = pipe(
        prompt=prompts,
        height=noise.shape[2] * pipe.vae_scale_factor,
        width=noise.shape[3] * pipe.vae_scale_factor,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise,
        output_type="pil",
    )
    return list(answer.images)


def _by_flux(pipe: Any, prompts: list[str], noise: "torch.Tensor", steps: int, guidance: float) -> "list[Image]":
    """Flux: squares of 2 x 2 are tokens; models that are told the guidance are told it, others are guided by it."""
    count, channels, height, width = noise.shape
    cut = noise.reshape(count, channels, height // 2, 2, width // 2, 2)
    told = pipe.transformer.config.guidance_embeds
    guided = {"true_cfg_scale": guidance, "negative_prompt": [""] * count}
    answer = pipe(
        prompt=prompts,
        height=height * pipe.vae_scale_factor,
        width=width * pipe.vae_scale_factor,
        num_inference_steps=steps,
        latents=cut.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * 4),
        output_type="pil",
        **({"guidance_scale": guidance} if told else guided),
    )
    return list(answer.images)


def _by_label(pipe: Any, prompts: list[str], noise: "torch.Tensor", steps: int, guidance: float) -> "list[Image]":
    """DiT. The pipeline's own call would draw the noise itself, so these are its steps."""
    import torch

    classes = torch.tensor(_classes(pipe, prompts), device=noise.device)
    asked = torch.cat([classes, torch.full_like(classes, NO_CLASS)]) if guidance > 1 else classes
    pipe.scheduler.set_timesteps(steps)
    for time in pipe.scheduler.timesteps:
        seen = pipe.scheduler.scale_model_input(torch.cat([noise, noise]) if guidance > 1 else noise, time)
        times = time.to(noise.device).expand(len(seen))
        predicted = pipe.transformer(seen, timestep=times, class_labels=asked).sample[:, : noise.shape[1]]
        if guidance > 1:
            named, free = predicted.chunk(2)
            predicted = free + guidance * (named - free)
        noise = pipe.scheduler.step(predicted, time, noise).prev_sample
    decoded = pipe.vae.decode(1 / pipe.vae.config.scaling_factor * noise).sample
    return _pictures(pipe, decoded)


def _by_nothing(pipe: Any, _prompts: list[str], noise: "torch.Tensor", steps: int, _guidance: float) -> "list[Image]":
    """Unconditional diffusion on pixels; its call, too, would draw the noise itself."""
    pipe.scheduler.set_timesteps(steps)
    for time in pipe.scheduler.timesteps:
        noise = pipe.scheduler.step(pipe.unet(noise, time).sample, time, noise).prev_sample
    return _pictures(pipe, noise)


def _pictures(pipe: Any, pixels: "torch.Tensor") -> "list[Image]":
    """N3HW in [-1, 1] -> pictures."""
    shown = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().float().numpy()
    return list(pipe.numpy_to_pil(shown))


def _classes(pipe: Any, prompts: list[str]) -> list[int]:
    """The numbers of labels; the empty prompt asks for no class. Raises ``ValueError`` for unknown labels."""
    whole = pipe.config.get("id2label") or {}
    known = {**pipe.labels, **{label: int(number) for number, label in whole.items()}, "": NO_CLASS}
    unknown = sorted({prompt for prompt in prompts if prompt not in known})
    if unknown:
        labels = sorted(label for label in known if label)
        more = f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else ""
        raise ValueError(
            f"this model knows no label {' or '.join(map(repr, unknown))}; it knows "
            f"{', '.join(labels[:MOST_LABELS])}{more}"
        )
    return [known[prompt] for prompt in prompts]


NO_CLASS = 1000  # DiTPipeline has this number written in its call
MOST_LABELS = 50  # of those that a message names

Paint = Callable[[Any, list[str], "torch.Tensor", int, float], "list[Image]"]
Shape = Callable[[Any], tuple[int, int, int]]
# Class of a pipeline -> (how it draws from noise, the shape of one picture's noise).
CLASSES: dict[str, tuple[Paint, Shape]] = {
    "StableDiffusionPipeline": (_by_prompt, _own_shape),
    "StableDiffusionXLPipeline": (_by_prompt, _own_shape),
    "StableDiffusion3Pipeline": (_by_prompt, _own_shape),
    "FluxPipeline": (_by_flux, _flux_shape),
    "DiTPipeline": (_by_label, _own_shape),
    "DDIMPipeline": (_by_nothing, _own_shape),
}


def _noise_seed(seed: int, index: int) -> int:
    """63 bits that belong to this picture alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:8], "big") >> 1


class Painter(PythonModel):  # type: ignore[misc]  # mypy does not look into mlflow
    """A diffusers pipeline behind MLflow's ``predict``."""

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
