"""What a checkpoint draws for the validation side's prompts, and its features: made once and kept in the store.

Picture i depends on the seed, i and its prompt alone, so pictures may be drawn in parts: a comparison that needs more
draws only those, and one that was killed goes on after its last finished part.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darkroom.artifacts import Checkpoint, Features, Samples, Shards
from darkroom.devices import prepare
from darkroom.recipe import Evaluate
from darkroom.stages import stage_digest
from darkroom.store import Store, digest_of, write_json
from darkroom.weights.locate import locate

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.diffusion.families import Family

Progress = Callable[[int, int], None]
PICTURES = "pictures"


def save_pictures(pictures: list[Any], folder: Path, first: int = 0) -> None:
    """Write pictures (Pillow's, or HWC uint8) as 00000.png, 00001.png, ..., counted from ``first``."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures, first):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.convert("RGB").save(folder / f"{index:05d}.png", compress_level=1)


class Drawer:
    """One checkpoint with one seed, as it draws the validation side's prompts, in order, over and over."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        shards: Shards,
        plan: Evaluate,
        seed: int,
        store: Store,
        *,
        threads: int,
        device: str = "cpu",
        progress: Progress = lambda done, total: None,
        pipeline: Any = None,
    ) -> None:
        """``progress`` is told (pictures drawn, in all) of every part. ``pipeline``: where it is loaded already."""
        self._checkpoint, self._shards, self._plan, self._seed, self._store = checkpoint, shards, plan, seed, store
        self._threads, self._device, self._progress = threads, device, progress
        if pipeline is not None:
            self._pipeline = pipeline

    @functools.cached_property
    def _pipeline(self) -> Any:
        from darkroom.diffusion.pipeline import load_pipeline

        prepare(self._threads, self._device)
        return load_pipeline(self._checkpoint.path / "pipeline", self._device)

    @functools.cached_property
    def _family(self) -> "Family":
        from darkroom.diffusion.families import family_of_class
        from darkroom.weights.pipelines import read_index

        folder = self._checkpoint.path / "pipeline"
        return family_of_class(str(read_index(folder, str(folder))["_class_name"]))

    @functools.cached_property
    def texts(self) -> list[str]:
        """The captions or labels of the validation side, as this kind of model is asked; empty where there is none."""
        from darkroom.training.data import texts

        return texts(self._shards, "validation", self._family.asked_by)

    def prompts(self, first: int, last: int) -> list[str]:
        """What the pictures of these numbers are drawn for."""
        return [self.texts[index % len(self.texts)] for index in range(first, last)]

    def labels(self, first: int, last: int) -> list[str]:
        """The classes of the rows that these pictures are drawn for; empty where there is none."""
        from darkroom.training.data import texts

        every = texts(self._shards, "validation", "label")
        return [every[index % len(every)] for index in range(first, last)]

    def samples(self, first: int, last: int) -> Samples:
        """The pictures from ``first`` up to ``last``, drawn unless the store has them."""
        prompts = self.prompts(first, last)
        fields = {
            "seed": self._seed,
            "first": first,
            "last": last,
            "sampler": self._plan.sampler.digest_fields(),
            "threads": self._threads,
        }
        inputs = {"checkpoint": self._checkpoint.digest, "prompts": digest_of(prompts)}

        def build(work: Path) -> dict[str, Any]:
            from darkroom.diffusion.sampling import draw

            shape = self._family.latent_shape(self._pipeline)
            scale = getattr(self._pipeline, "vae_scale_factor", 1)
            self._store.need_room((last - first) * 3 * shape[1] * shape[2] * scale**2, "drawing")
            pictures: list[Image.Image] = draw(
                self._pipeline,
                prompts,
                self._seed,
                self._plan.sampler,
                lambda done: self._progress(first + done, last),
                first=first,
            )
            save_pictures(pictures, work / PICTURES, first)
            write_json(work / "prompts.json", prompts)
            return {"device": self._device}

        return self._store.get_or_build(
            Samples, stage_digest("samples", fields, inputs), build, inputs=inputs, fields=fields
        )

    def features(self, first: int, last: int) -> np.ndarray:
        """[N, dimensions] of these pictures, by the extractor of the distance."""
        plan = self._plan
        return features_of(
            self.samples(first, last), plan.features, plan.layer, self._store, self._threads, self._device
        )

    def scores(self, first: int, last: int) -> np.ndarray:
        """[N] the CLIP score of these pictures; NaN where nothing was asked for."""
        from .measures import clip_scores

        prompts, plan = self.prompts(first, last), self._plan
        scores = np.full(len(prompts), np.nan)
        asked = [place for place, prompt in enumerate(prompts) if prompt]
        if asked:
            projected = features_of(
                self.samples(first, last), plan.clip, "projection", self._store, self._threads, self._device
            )
            scores[asked] = clip_scores(projected[asked], [prompts[place] for place in asked], locate(plan.clip).path)
        return scores


def features_of(samples: Samples, extractor: str, layer: str, store: Store, threads: int, device: str) -> np.ndarray:
    """[N, dimensions] float64 of samples; see :func:`darkroom.evaluation.features.load` for what is raised."""
    from safetensors.numpy import load_file

    from .features import folder_features, identity

    inputs = {"samples": samples.digest, "features": identity(extractor, None)[1]}
    fields = {"layer": layer, "threads": threads}

    def build(work: Path) -> None:
        from safetensors.numpy import save_file

        prepare(threads, device)
        save_file(
            {"features": folder_features(samples.path / PICTURES, _loaded(extractor, device, layer))},
            work / "features.safetensors",
        )

    found = store.get_or_build(Features, stage_digest("features", fields, inputs), build, inputs=inputs, fields=fields)
    content: np.ndarray = load_file(found.path / "features.safetensors")["features"]
    return content


@functools.lru_cache(maxsize=2)
def _loaded(extractor: str, device: str, layer: str) -> Any:
    from .features import load

    return load(extractor, device, layer)
