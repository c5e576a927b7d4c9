"""Embeddings of captions, each encoded once for one text encoder and then taken from the store.

As with latents, the encoder is always called with the same number of captions: an embedding depends on its caption
alone, and not on which others were new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import Shards
from darkroom.store import digest_of
from darkroom.weights.locate import folder_digest

from .rowcache import Place, RowCache

if TYPE_CHECKING:
    import torch

# Raised when the embedding of the same caption under the same weights changes.
TEXTS = 1
CACHE = "textcache"
TOKENS_AT_ONCE = 256  # enough for a call to pay, little to throw away
AT_ONCE = 512  # captions encoded and then kept; a kill loses no more


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and a CLIP text encoder; with a ``root``, embeddings are kept there under the digest ``weights``."""

    tokenizer: Any
    model: Any
    weights: str = ""
    root: Path | None = None

    @classmethod
    def cached(cls, tokenizer: Any, model: Any, folder: Path, shards: Shards) -> "TextEncoder":
        """One whose embeddings are kept in the store that has the shards; ``folder`` is what it was loaded from."""
        root = shards.path.parents[1] if shards.path.parent.name == Shards.kind else None  # else they lie in no store
        return cls(tokenizer, model, text_digest(folder) if root else "", root)

    def __call__(self, captions: Sequence[str]) -> "torch.Tensor":
        """Captions -> float32 [N, tokens, width] on the CPU, as ``StableDiffusionPipeline`` feeds them to the UNet."""
        import torch

        if self.root is None:
            return encode_texts(captions, self.tokenizer, self.model)
        context = [TEXTS, "float32", self.weights, torch.get_num_threads(), self.model.device.type]
        keys = {caption: digest_of([*context, caption]) for caption in captions}
        with RowCache(self.root, CACHE) as cache:
            places: dict[str, Place] = cache.find(keys.values())
            new = [caption for caption, key in keys.items() if key not in places]
            for start in range(0, len(new), AT_ONCE):
                part = new[start : start + AT_ONCE]
                rows = encode_texts(part, self.tokenizer, self.model).numpy()
                places |= cache.add([keys[caption] for caption in part], {"embeddings": rows})
            found = cache.read([keys[caption] for caption in captions], places, "embeddings")
        return torch.from_numpy(found)


def encode_texts(captions: Sequence[str], tokenizer: Any, text_encoder: Any) -> "torch.Tensor":
    """Captions -> float32 [N, tokens, width] on the CPU; every call has the same shape."""
    import torch

    size = max(1, TOKENS_AT_ONCE // tokenizer.model_max_length)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(captions), size):
            part = list(captions[start : start + size])
            tokens = tokenizer(
                part + [""] * (size - len(part)),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            parts.append(text_encoder(tokens.input_ids.to(text_encoder.device))[0][: len(part)].float().cpu())
        found = torch.cat(parts)
    return found.clone()  # an inference tensor cannot be trained on


def text_digest(folder: Path) -> str:
    """sha256 over the tokenizer and text encoder of a folder that has them at its top or as Stable Diffusion does."""
    if (folder / "text_encoder").is_dir():
        return digest_of([folder_digest(folder / part) for part in ("text_encoder", "tokenizer")])
    return folder_digest(folder)
