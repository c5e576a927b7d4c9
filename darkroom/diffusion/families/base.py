"""What darkroom needs to know of a kind of pipeline to train it, to judge it and to draw with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from darkroom.errors import RecipeError
from darkroom.recipe_training import DRAWN, Model

from ..objectives import Kind, Objective

if TYPE_CHECKING:
    from PIL import Image

Conditions = dict[str, torch.Tensor]  # each [N, ...]: what the denoiser is given beside picture and time
Parts = Mapping[str, Path]  # folders of frozen parts by their names in the recipe: vae, text_encoder, ...


@dataclass(frozen=True)
class Shape:
    """What a new denoiser is made for."""

    channels: int
    """Of the latents, or of the pixels."""
    side: int
    """Of the square that the finished model draws. Latent pixels."""
    labels: tuple[str, ...] = ()
    """The classes, for models that know classes."""


class Family(ABC):
    """One kind of diffusers pipeline.

    Everything is asked of the pipeline itself, so that a finished model needs no recipe to be judged or drawn from.
    """

    pipeline: str
    """The class in diffusers."""
    denoiser: str
    """The pipeline's attribute that is trained: ``unet`` or ``transformer``."""
    asked_by: Literal["caption", "label", "nothing"]
    """What its pictures are asked for by."""
    name: str
    """In a recipe."""
    shifts_latents: bool = False
    """Whether the pipeline adds the autoencoder's ``shift_factor`` again when it decodes."""

    @property
    def objectives(self) -> tuple[Kind, ...]:
        """What its pipeline can draw with; the first is used from scratch."""
        return DRAWN[self.name]

    @abstractmethod
    def new(self, model: Model, parts: Parts, shape: Shape, objective: Objective, seed: int, dropout: float) -> Any:
        """A whole pipeline with frozen parts as they lie there and a new denoiser that follows from ``seed`` alone."""

    @abstractmethod
    def encode(self, pipeline: Any, texts: Sequence[str]) -> Conditions:
        """Captions or labels -> conditions on the CPU, float32 or int64, the same for each whatever the others are.

        The empty text is the unconditional branch. Called in one process at a time, without gradients.
        """

    @abstractmethod
    def predict(self, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """Ask the denoiser: NCHW, times as :meth:`Objective.model_times` gives them, conditions -> NCHW."""

    @abstractmethod
    def draw(
        self, pipeline: Any, texts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
    ) -> "list[Image.Image]":
        """One picture for each text from its noise NCHW, through the pipeline's own call."""

    def encoder_parts(self) -> tuple[str, ...]:
        """The pipeline's attributes that :meth:`encode` asks, whose weights decide what it answers."""
        return ()

    def encoders(self, pipeline: Any) -> list[Any]:
        """All that decides what :meth:`encode` answers: tokenizers, models, and texts that stand for settings."""
        return [getattr(pipeline, name) for name in self.encoder_parts()]

    def unknown(self, pipeline: Any, texts: Sequence[str]) -> tuple[str, ...]:
        """Those of the texts that the pipeline has no way to be asked by, each once."""
        return ()

    def latent_shape(self, pipeline: Any) -> tuple[int, int, int]:
        """CHW of the noise that a picture starts from."""
        config = getattr(pipeline, self.denoiser).config
        side = (config.sample_size, config.sample_size) if isinstance(config.sample_size, int) else config.sample_size
        return (int(config.in_channels), int(side[0]), int(side[1]))

    def resize(self, pipeline: Any, side: int) -> None:
        """Have the pipeline draw squares of this side, in latent pixels, from now on.

        Raises :class:`RecipeError` where its denoiser is made for one side alone.
        """
        getattr(pipeline, self.denoiser).register_to_config(sample_size=side)
        if hasattr(pipeline, "default_sample_size"):
            pipeline.default_sample_size = side

    def settle(self, pipeline: Any) -> None:  # noqa: B027  # most lose nothing
        """Put right what the pipeline would lose when it is saved."""

    def load(self, folder: Path, parts: Parts) -> Any:
        """The whole pipeline of a folder, in float32, but for the ``parts`` that are taken from elsewhere."""
        import diffusers

        from darkroom.weights.pipelines import LEFT_OUT, components, read_index

        index = read_index(folder, str(folder))
        others: dict[str, Any] = {name: None for name in LEFT_OUT if name in index}
        if "requires_safety_checker" in index:
            others["requires_safety_checker"] = False
        for name, place in parts.items():
            others |= load_part(name, place, components(index))
        pipeline = getattr(diffusers, self.pipeline).from_pretrained(
            folder, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True, **others
        )
        for name, part in pipeline.components.items():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(name == self.denoiser).eval()
                if isinstance(part, diffusers.ConfigMixin):
                    part.register_to_config(_name_or_path="")  # a folder of this machine is no one else's business
        return pipeline

    def describe(self) -> str:
        """The denoiser in the words of a model card."""
        return f"the `{self.denoiser}` of a `{self.pipeline}`"

    def call(self, prompt: str, side: int, steps: int, guidance: float) -> str:
        """The arguments with which Python asks the finished pipeline for a picture; ``side`` in pixels."""
        return f"{prompt!r}, num_inference_steps={steps}, guidance_scale={guidance}"


def load_part(name: str, place: Path, classes: Mapping[str, str]) -> dict[str, Any]:
    """A frozen part (vae, text_encoder, ...) that takes the place of a base's, with its tokenizer if it has one.

    ``place`` has it at its top or in folders of these names; ``classes`` are those of the base. Raises
    :class:`RecipeError` for a part that the base has no place for.
    """
    import diffusers
    import transformers

    if name not in classes:
        raise RecipeError(f"model.{name} is named, but the base has no {name}: leave it out")
    library: Any = diffusers if hasattr(diffusers, classes[name]) else transformers
    inner = place / name
    loader = getattr(library, classes[name])
    part = loader.from_pretrained(inner if inner.is_dir() else place, torch_dtype=torch.float32, use_safetensors=True)
    found = {name: part}
    if (tokenizer := name.replace("text_encoder", "tokenizer")) != name:
        inner = place / tokenizer
        found[tokenizer] = getattr(transformers, classes[tokenizer]).from_pretrained(inner if inner.is_dir() else place)
    return found


def in_calls_of(
    size: int, texts: Sequence[str], encode: Callable[[list[str]], Conditions], filler: str = ""
) -> Conditions:
    """Encode texts in calls of one size, the last filled up and the surplus thrown away.

    Kernels are chosen by the shape of a call: so what is made of a text depends on it alone.
    """
    parts: list[Conditions] = []
    with torch.inference_mode():
        for start in range(0, len(texts), size):
            part = list(texts[start : start + size])
            made = encode(part + [filler] * (size - len(part)))
            parts.append({name: value[: len(part)].cpu() for name, value in made.items()})
    # An inference tensor cannot be trained on: hence the clone.
    return {name: torch.cat([part[name] for part in parts]).clone() for name in parts[0]}
