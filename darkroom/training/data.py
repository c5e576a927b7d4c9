"""One side of the split, as training and evaluation hold it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from darkroom.artifacts import Shards
from darkroom.preprocess.shards import load_parts, read_index

Embed = Callable[[Sequence[str]], torch.Tensor]


class Data:
    """Rows of one shape: latents [N, c, h, w] float32, and for each row the embedding [tokens, width] of its caption.

    ``pixels`` are there where they were asked for; ``embeddings`` are those of the whole side, and ``rows`` says which
    is whose. A row without a caption has that of the empty one, the first.
    """

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        rows: list[dict[str, Any]],
        position: dict[str, int],
        texts: torch.Tensor,
    ) -> None:
        self.pixels = tensors.get("pixels", torch.empty(0))  # uint8 N3HW
        self.latents = tensors["latents"].contiguous(memory_format=torch.channels_last)
        self.captions: list[str | None] = [row["caption"] for row in rows]
        self.rows = torch.tensor([position[caption or ""] for caption in self.captions])
        self.embeddings = texts

    def to(self, device: torch.device) -> "Data":
        """Move what the model sees to a device, in place."""
        self.latents, self.rows = self.latents.to(device), self.rows.to(device)
        self.embeddings = self.embeddings.to(device)
        return self


class Side:
    """All rows of a side: one :class:`Data` for each shape that has any, in the order of the shapes."""

    def __init__(self, shards: Shards, side: str, embed: Embed, pixels: bool = False) -> None:
        content = read_index(shards)
        found = load_parts(shards, side, ("pixels", "latents") if pixels else ("latents",))
        captions = {row["caption"] or "" for _, rows in found for row in rows}
        distinct = sorted({"", *captions})  # the empty caption, first, is the unconditional branch
        position = {caption: index for index, caption in enumerate(distinct)}
        texts = embed(distinct)
        self.parts = [Data(tensors, rows, position, texts) for tensors, rows in found]
        self.captions = [caption for part in self.parts for caption in part.captions]
        self.pictures = int(content["sides"][side])  # rows are more, where there are variants
        self.size = int(content["size"])  # of the square, whose pictures the finished model draws
        shape = next(shard["shape"] for shard in content["shards"] if shard["side"] == side)
        self.latent_size = self.size * self.parts[0].latents.shape[2] // int(shape[0])

    def prompts(self, most: int) -> tuple[str, ...]:
        """Some of its captions, the same every time; empty ones where it has none."""
        distinct = sorted({caption for caption in self.captions if caption})
        return tuple(distinct)[:most] or ("",) * most

    def to(self, device: torch.device) -> "Side":
        """Move what the model sees to a device, in place."""
        texts = self.parts[0].embeddings.to(device)
        for part in self.parts:
            part.embeddings = texts
            part.to(device)
        return self
