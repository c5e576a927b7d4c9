"""One side of the split, as training and evaluation hold it."""

from typing import Any

import torch

from darkroom.artifacts import Shards
from darkroom.diffusion.pipeline import embed
from darkroom.preprocess.shards import load_side


class Data:
    """Latents [N, c, h, w] float32, and for each row the embedding [tokens, width] of its caption."""

    def __init__(self, shards: Shards, side: str, tokenizer: Any, text_encoder: Any) -> None:
        tensors, rows = load_side(shards, side)
        self.pixels = tensors["pixels"]  # uint8 N3HW
        self.latents = tensors["latents"].contiguous(memory_format=torch.channels_last)
        self.captions: list[str] = [row["caption"] for row in rows]
        distinct = sorted({"", *self.captions})  # the empty caption, first, is the unconditional branch
        position = {caption: index for index, caption in enumerate(distinct)}
        self.rows = torch.tensor([position[caption] for caption in self.captions])
        self.embeddings = embed(distinct, tokenizer, text_encoder).clone()  # an inference tensor cannot be trained on

    def to(self, device: torch.device) -> "Data":
        """Move what the model sees to a device, in place."""
        self.latents, self.rows = self.latents.to(device), self.rows.to(device)
        self.embeddings = self.embeddings.to(device)
        return self
