"""Captions written by a model of pictures: BLIP and its like, an encoder with a decoder, or one that is talked to.

What is written depends on the picture and the weights alone: the likeliest token each time, a fixed number of threads,
and batches that are always full. So it is cached by both and never written twice.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cache import Cache
from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.weights.locate import Weights, locate

from .picture import working_path

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1  # raised when what is written changes: captions of another version are not used
BATCH, MOST_TOKENS = 8, 40
THREADS = 1  # of the CPU; where others work too, two took over ten times as long as one
QUESTION = "Describe this picture in one sentence."  # to models that are talked to
_TASKS = {"florence2": "<CAPTION>"}  # to models that are told by a mark

Progress = Callable[[int, int], None]
Captioner = Callable[[list[str]], dict[str, str]]
Writer = Callable[[list["Image.Image"]], list[str]]


def captioner(
    name: str,
    root: Path,
    working: Mapping[str, str],
    device: str = "cpu",
    threads: int = THREADS,
    progress: Progress = lambda done, total: None,
) -> Captioner:
    """A function from pictures' ids to {id: caption} by the model ``name``; it is loaded when it first must write.

    ``root`` is the store's, ``working`` has each id's key of the working copy (ids without one get no caption).
    Another number of CPU ``threads`` may give other last bits, so it belongs to what is cached.
    ``progress`` is told (captions written, to be written). Raises :class:`RecipeError` where there is no model.
    """
    weights = find(name)
    writer: list[Writer] = []

    def write(ids: list[str]) -> dict[str, str]:
        keys = {picture: working[picture] for picture in sorted(set(ids)) if picture in working}
        entries = {key: _entry(weights, threads, key) for key in sorted(set(keys.values()))}
        with Cache(root / "cache.db") as cache:
            known: dict[str, str] = cache.get("captions", list(entries.values()))
            missing = [
                key for key, entry in entries.items() if entry not in known and working_path(root, key).is_file()
            ]
            if missing and not writer:
                writer.append(load(weights, device, threads))
            for start in range(0, len(missing), BATCH):
                batch = missing[start : start + BATCH]
                texts = writer[0]([_picture(working_path(root, key)) for key in batch])
                learnt = {entries[key]: text for key, text in zip(batch, texts, strict=True)}
                cache.put("captions", learnt)
                known |= learnt
                progress(start + len(batch), len(missing))
        return {picture: known[entries[key]] for picture, key in keys.items() if entries[key] in known}

    return write


def find(name: str) -> Weights:
    """The captioning model's folder; raises :class:`RecipeError` that says how to supply it."""
    advice = "give check.captioner the path of a folder with config.json, *.safetensors, the tokenizer and processor"
    try:
        weights = locate(name)
    except (RecipeError, ServiceUnavailable) as error:
        raise RecipeError(f"check.captioner = {name!r} cannot be had: {error}; {advice}") from None
    if not (weights.path / "config.json").is_file() or not any(weights.path.glob("*.safetensors")):
        raise RecipeError(
            f"check.captioner = {name!r}: {weights.path} has no config.json with weights in safetensors, and nothing "
            f"else is opened; {advice}"
        )
    return weights


def load(weights: Weights, device: str = "cpu", threads: int = THREADS) -> Writer:
    """A function from RGB pictures to their captions; raises :class:`RecipeError` for a folder without such a model."""
    import torch
    from transformers import AutoModelForImageTextToText

    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            weights.path, use_safetensors=True, trust_remote_code=False, local_files_only=True, dtype=torch.float32
        )
        prepare, read = _processors(weights.path, str(model.config.model_type))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first = str(error).strip().split("\n")[0][:300]
        raise RecipeError(
            f"check.captioner = {weights.name!r} cannot be used: {first}; name a model that transformers loads as "
            "AutoModelForImageTextToText"
        ) from None
    model.to(device).eval()

    def write(pictures: list["Image.Image"]) -> list[str]:
        full = [*pictures, *pictures[-1:] * (BATCH - len(pictures))]  # equal shapes give equal last bits
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                given = prepare(full).to(device)
                tokens = model.generate(**given.values, do_sample=False, num_beams=1, max_new_tokens=MOST_TOKENS)
        finally:
            torch.set_num_threads(before)
        texts: list[str] = read(tokens[:, given.spoken :])
        return [text.strip() for text in texts[: len(pictures)]]

    return write


@dataclass(frozen=True)
class _Given:
    """A model's inputs; the first ``spoken`` tokens of its answer repeat the question."""

    values: dict[str, Any]
    spoken: int = 0

    def to(self, device: str) -> "_Given":
        return _Given({name: value.to(device) for name, value in self.values.items()}, self.spoken)


def _processors(path: Path, kind: str) -> tuple[Callable[[list["Image.Image"]], _Given], Callable[[Any], list[str]]]:
    """(pictures -> the model's inputs, tokens -> texts)."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    processor: Any = AutoProcessor.from_pretrained(path, local_files_only=True)
    if getattr(processor, "chat_template", None) and hasattr(processor, "image_processor"):
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        question = processor.apply_chat_template(said, add_generation_prompt=True)

        def ask(pictures: list["Image.Image"]) -> _Given:
            shown = [[picture] for picture in pictures]
            values = processor(images=shown, text=[question] * len(pictures), padding=True, return_tensors="pt")
            return _Given(dict(values), values["input_ids"].shape[1])

        return ask, lambda tokens: list(processor.batch_decode(tokens, skip_special_tokens=True))
    if kind in _TASKS:

        def tell(pictures: list["Image.Image"]) -> _Given:
            values = processor(images=pictures, text=[_TASKS[kind]] * len(pictures), return_tensors="pt")
            return _Given(dict(values))

        return tell, lambda tokens: list(processor.batch_decode(tokens, skip_special_tokens=True))
    images: Any = AutoImageProcessor.from_pretrained(path, local_files_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)

    def show(pictures: list["Image.Image"]) -> _Given:
        return _Given({"pixel_values": images(images=pictures, return_tensors="pt")["pixel_values"]})

    return show, lambda tokens: list(tokenizer.batch_decode(tokens, skip_special_tokens=True))


def _entry(weights: Weights, threads: int, key: str) -> str:
    return hashlib.sha256(f"{VERSION}:{weights.sha256}:{threads}:{key}".encode()).hexdigest()


def _picture(path: Path) -> "Image.Image":
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")
