"""DiT: a transformer that is told a class (Peebles and Xie 2022), on the latents of an AutoencoderKL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from darkroom.errors import RecipeError
from darkroom.recipe_training import Model

from ..objectives import Objective
from ..pipeline import load_vae
from .base import Conditions, Family, Parts, Shape
from .transformer import must_divide, seeded

if TYPE_CHECKING:
    from PIL import Image

# The class that stands for none. DiTPipeline has this number written in its call: so there are always 1001 classes.
NULL = 1000


class Dit(Family):
    """``DiTPipeline``, whose pictures are asked for by a label; labels that it does not know count as none."""

    name = "dit"
    pipeline = "DiTPipeline"
    denoiser = "transformer"
    asked_by = "label"

    def new(self, model: Model, parts: Parts, shape: Shape, objective: Objective, seed: int, dropout: float) -> Any:
        """A new transformer behind the autoencoder that the recipe names.

        Raises :class:`RecipeError` where there is no label, or more than 1000.
        """
        from diffusers import DiTPipeline, DiTTransformer2DModel

        if not shape.labels:
            raise RecipeError(
                "model.family = 'dit' learns pictures by their labels, and no picture of the training side has one: "
                "name collect.columns.label, sort the pictures into a folder a class, or take another family"
            )
        if len(shape.labels) > NULL:
            raise RecipeError(
                f"model.family = 'dit' knows at most {NULL} labels, and the training side has {len(shape.labels):,}: "
                "merge some, or take a family that reads captions"
            )
        plan = model.transformer
        must_divide(shape.side, plan.patch_size, "model.transformer.patch_size")
        transformer = seeded(
            seed,
            lambda: DiTTransformer2DModel(
                sample_size=shape.side,
                in_channels=shape.channels,
                out_channels=shape.channels,  # the pipeline asks for it, and None is not as many
                patch_size=plan.patch_size,
                num_layers=plan.layers,
                num_attention_heads=plan.heads,
                attention_head_dim=plan.head_width,
                num_embeds_ada_norm=NULL,
                dropout=dropout,
            ),
        )
        names = dict(enumerate(shape.labels))
        made = DiTPipeline(transformer, load_vae(parts["vae"]), objective.scheduler(), id2label=names)
        made.register_to_config(id2label=names)  # or it is not saved
        return made

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Conditions:
        """``class_labels`` int64 [N]; the empty text and unknown labels are the null class."""
        known = labels_of(pipeline)
        return {"class_labels": torch.tensor([known.get(text, NULL) for text in texts], dtype=torch.int64)}

    def unknown(self, pipeline: Any, texts: Sequence[str]) -> tuple[str, ...]:
        """Labels that the pipeline has no class for."""
        return tuple(sorted({text for text in texts if text} - labels_of(pipeline).keys()))

    def predict(self, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """The transformer's answer; of one that also predicts variances, its first half."""
        _keep_labels(denoiser)
        answer: torch.Tensor = denoiser(noisy, timestep=times, class_labels=given["class_labels"]).sample
        return answer[:, : noisy.shape[1]]

    def draw(
        self, pipeline: Any, texts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
    ) -> "list[Image.Image]":
        """The pipeline's own steps from this noise; its call would draw the noise itself."""
        classes = self.encode(pipeline, texts)["class_labels"].to(pipeline.transformer.device)
        samples = self.sample(pipeline, classes, noise, steps, guidance)
        found: list[Image.Image] = pipeline.numpy_to_pil(samples.permute(0, 2, 3, 1).cpu().float().numpy())
        return found

    @torch.inference_mode()
    def sample(
        self, pipeline: Any, classes: torch.Tensor, noise: torch.Tensor, steps: int, guidance: float
    ) -> torch.Tensor:
        """NCHW noise and N classes -> N3HW in [0, 1]."""
        latents = noise.to(pipeline.transformer.device, pipeline.transformer.dtype)
        asked = torch.cat([classes, torch.full_like(classes, NULL)]) if guidance > 1 else classes
        pipeline.scheduler.set_timesteps(steps)
        for time in pipeline.scheduler.timesteps:
            seen = torch.cat([latents, latents]) if guidance > 1 else latents
            seen = pipeline.scheduler.scale_model_input(seen, time)
            times = time.to(latents.device).expand(len(seen))
            predicted = self.predict(pipeline.transformer, seen, times, {"class_labels": asked})
            if guidance > 1:
                named, free = predicted.chunk(2)
                predicted = free + guidance * (named - free)
            latents = pipeline.scheduler.step(predicted, time, latents).prev_sample
        decoded: torch.Tensor = pipeline.vae.decode(1 / pipeline.vae.config.scaling_factor * latents).sample
        return (decoded / 2 + 0.5).clamp(0, 1)

    def resize(self, pipeline: Any, side: int) -> None:
        """It sees one side alone: its positions are of that side's grid."""
        made_for = int(pipeline.transformer.config.sample_size)
        if side != made_for:
            factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
            raise RecipeError(
                f"preprocess.size = {side * factor}: this DiTPipeline draws pictures of {made_for * factor} pixels "
                "alone; take that size"
            )

    def settle(self, pipeline: Any) -> None:
        """One that was loaded does not save its labels again."""
        if pipeline.labels and not pipeline.config.get("id2label"):
            names: dict[int, list[str]] = {}
            for label, number in pipeline.labels.items():
                names.setdefault(number, []).append(label)
            pipeline.register_to_config(id2label={number: ", ".join(some) for number, some in sorted(names.items())})

    def call(self, prompt: str, side: int, steps: int, guidance: float) -> str:
        """By numbers, which the pipeline knows by label."""
        return f"pipeline.get_label_ids([{prompt!r}]), num_inference_steps={steps}, guidance_scale={guidance}"


def labels_of(pipeline: Any) -> dict[str, int]:
    """The numbers of a pipeline's labels; of one with commas, which the pipeline takes apart, of the whole, too."""
    whole = pipeline.config.get("id2label") or {}
    return {**pipeline.labels, **{label: int(number) for number, label in whole.items()}}


def _keep_labels(denoiser: Any) -> None:
    """Stop the layers from dropping labels by torch's own random numbers: dropout is the data's, from (seed, step)."""
    for block in denoiser.transformer_blocks:
        block.norm1.emb.class_embedder.dropout_prob = 0.0


FAMILY = Dit()
