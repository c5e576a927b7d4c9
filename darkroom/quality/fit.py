"""Whether captions fit their pictures, as an optional CLIP model sees it, a local folder or a name.

A caption is remarked on where another one of the same data is far likelier to belong to the picture: likelihoods are as
the exponentials of scaled similarities (Radford et al., Learning Transferable Visual Models From Natural Language
Supervision, 2021, section 3.1.2). That finds what no text tells: a wrong label with a caption that agrees with it. Such
models count, read and compare badly, so it is a remark and never a refusal.

Pictures and captions are looked at once by one set of weights; what was seen of them is kept.
"""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darkroom.cache import Cache
from darkroom.errors import RecipeError
from darkroom.reasons import reason
from darkroom.recipe import Check
from darkroom.store import Store
from darkroom.weights.locate import Weights, locate

from .docs import shorten
from .picture import working_path

if TYPE_CHECKING:
    import torch

KIND = "caption does not fit"
BATCH = 32
OTHERS = 2_000  # captions that a picture is compared with, those of the least digests where there are more
FEWEST = 5  # different captions, below which there is nothing to compare with
ROWS = 1_000  # compared at a time

Encode = Callable[[Sequence[str]], "torch.Tensor"]


@dataclass(frozen=True)
class Clip:
    """A CLIP model that is not loaded yet, and the scale of its similarities."""

    weights: Weights
    scale: float


def find(plan: Check) -> Clip | None:
    """The recipe's model, or None; raises :class:`RecipeError` when it is no CLIP model in safetensors."""
    if plan.clip is None:
        return None
    from safetensors import SafetensorError, safe_open

    weights = locate(plan.clip)
    files = sorted(weights.path.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, framework="numpy") as opened:
                if "logit_scale" in opened.keys():  # noqa: SIM118 - it has no other way to ask
                    return Clip(weights, math.exp(float(opened.get_tensor("logit_scale"))))
        except (OSError, SafetensorError) as error:
            raise RecipeError(f"check.clip = {plan.clip!r}: {file.name} cannot be read: {error}") from None
    lacking = "has no scale of similarities in its weights" if files else "has no weights in safetensors"
    raise RecipeError(
        f"check.clip = {plan.clip!r} {lacking}: name a folder or model that is CLIP's, as transformers has it"
    )


def judge(keys: Sequence[object], captions: Sequence[object], plan: Check, store: Store) -> list[str | None]:
    """A remark for each row whose caption does not fit; ``keys`` is the column ``working``, None: not to be looked at.

    Without ``check.clip``, and where there are hardly any captions to compare with, there are none.
    """
    clip = find(plan)
    remarks: list[str | None] = [None] * len(keys)
    texts = {
        place: (key, text)
        for place, (key, text) in enumerate(zip(keys, captions, strict=True))
        if isinstance(key, str) and isinstance(text, str) and text.strip()
    }
    distinct = sorted({text for _, text in texts.values()}, key=_digest)
    if clip is None or len(distinct) < FEWEST:
        return remarks
    with Cache(store.root / "cache.db") as cache:
        model = _Model(clip, cache)
        of_text = model.look("clip text", {text: _digest(text) for text in distinct}, model.texts)
        of_picture = model.look("clip picture", {key: key for key, _ in texts.values()}, model.pictures(store.root))
    others = _unit([of_text[text] for text in distinct[:OTHERS]])
    places = list(texts)
    for start in range(0, len(places), ROWS):
        some = places[start : start + ROWS]
        pictures = _unit([of_picture[texts[place][0]] for place in some])
        own = (pictures * _unit([of_text[texts[place][1]] for place in some])).sum(1)
        against = pictures @ others.T  # [rows, captions]
        best = against.argmax(1)
        odds = clip.scale * (against[np.arange(len(some)), best] - own)
        for place, other, logarithm in zip(some, best, odds, strict=True):
            if logarithm > math.log(plan.clip_odds):
                times = f"{math.exp(min(logarithm, 20)):,.0f} times as likely"
                remarks[place] = reason("check", KIND, f"{times}: {shorten(distinct[other], 60)}")
    return remarks


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _unit(features: Sequence[np.ndarray]) -> np.ndarray:
    """[N][dimensions] float16 -> [N, dimensions] float32, each of length 1."""
    whole = np.stack(features).astype(np.float32)
    found: np.ndarray = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    return found


class _Model:
    """Loads the model when the first picture or text comes that it has not seen."""

    def __init__(self, clip: Clip, cache: Cache) -> None:
        self._clip, self._cache = clip, cache
        self._loaded: tuple[Any, Any, Any] | None = None

    def look(self, table: str, keys: Mapping[str, str], encode: Encode) -> dict[str, np.ndarray]:
        """The features of all things, float16; ``keys`` has what each is remembered by."""
        entries = {thing: f"{key}:{self._clip.weights.sha256}" for thing, key in keys.items()}
        known = self._cache.get(table, entries.values())
        missing = [thing for thing, entry in entries.items() if entry not in known]
        for start in range(0, len(missing), BATCH):
            some = missing[start : start + BATCH]
            found = encode(some).numpy().astype(np.float16)
            learnt = {
                entries[thing]: base64.b64encode(one.tobytes()).decode() for thing, one in zip(some, found, strict=True)
            }
            self._cache.put(table, learnt)
            known.update(learnt)
        return {thing: np.frombuffer(base64.b64decode(known[entry]), np.float16) for thing, entry in entries.items()}

    def texts(self, texts: Sequence[str]) -> "torch.Tensor":
        """Features of texts: [N, dimensions] float32, cut where the model's context ends."""
        import torch

        model, tokenizer, _ = self._load()
        longest = model.config.text_config.max_position_embeddings
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            found = model.text_projection(model.text_model(**tokens).pooler_output)
        return _of_length_one(found)

    def pictures(self, root: Path) -> Encode:
        """A function from keys of working copies below the store's root to features, [N, dimensions] float32."""

        def encode(keys: Sequence[str]) -> "torch.Tensor":
            import torch
            from PIL import Image

            model, _, processor = self._load()
            opened = []
            for key in keys:
                with Image.open(working_path(root, key)) as picture:
                    opened.append(picture.convert("RGB"))
            pixels = processor(images=opened, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                found = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
            return _of_length_one(found)

        return encode

    def _load(self) -> tuple[Any, Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

            name, path = self._clip.weights.name, self._clip.weights.path
            where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            try:
                model: Any = CLIPModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32, **where).eval()
                tokenizer = AutoTokenizer.from_pretrained(path, **where)
                processor = AutoImageProcessor.from_pretrained(path, **where)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                raise RecipeError(f"check.clip = {name!r} cannot be loaded as a CLIP model: {error}") from error
            self._loaded = model, tokenizer, processor
        return self._loaded


def _of_length_one(features: "torch.Tensor") -> "torch.Tensor":
    """As float16 keeps them best."""
    plain = features.float()
    found: torch.Tensor = plain / plain.norm(dim=-1, keepdim=True)
    return found
