"""One side of the split, as training and evaluation hold it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from darkroom.artifacts import Shards
from darkroom.preprocess.shards import load_parts, read_index

Encode = Callable[[Sequence[str]], dict[str, torch.Tensor]]
Asked = Literal["caption", "label", "nothing"]


class Data:
    """Rows of one shape: latents [N, c, h, w] float32, and for each row what the denoiser is given for its text.

    ``pixels`` are there where they were asked for; ``conditions`` are those of the whole side by name, and ``rows``
    says which is whose: a row without a text has those of the empty one, the first.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], ids: list[str], texts: list[str]) -> None:
        self.pixels = tensors.get("pixels", torch.empty(0))  # uint8 N3HW
        self.latents = tensors["latents"].contiguous(memory_format=torch.channels_last)
        self.masks = tensors.get("mask")  # uint8 N1hw, 255 where a picture counts
        self.ids, self.texts = ids, texts
        self.rows = torch.zeros(len(texts), dtype=torch.int64)
        self.conditions: dict[str, torch.Tensor] = {}

    def given(self, positions: torch.Tensor) -> dict[str, torch.Tensor]:
        """The conditions at these positions, such as ``rows[part]``."""
        return {name: value[positions] for name, value in self.conditions.items()}


def texts(shards: Shards, side: str, asked: Asked) -> list[str]:
    """The text of every row of a side, in the order of :attr:`Side.texts`; see there for ``asked``."""
    return [text for _, rows in load_parts(shards, side, ()) for text in _texts(rows, asked)]


def _texts(rows: list[dict[str, Any]], asked: Asked) -> list[str]:
    return ["" if asked == "nothing" else row[asked] or "" for row in rows]


class Side:
    """All rows of a side: one :class:`Data` for each shape that has any, in the order of the shapes.

    ``asked`` says what a row's text is: its caption, its label, or nothing.
    """

    def __init__(
        self, shards: Shards, side: str, asked: Asked = "caption", pixels: bool = False, masks: bool = False
    ) -> None:
        content = read_index(shards)
        self.parts: list[Data] = []
        names = ("latents", *(("pixels",) if pixels else ()), *(("mask",) if masks else ()))
        for tensors, rows in load_parts(shards, side, names):
            self.parts.append(Data(tensors, [row["id"] for row in rows], _texts(rows, asked)))
        self.texts = [text for part in self.parts for text in part.texts]
        self.pictures = int(content["sides"][side])  # rows are more, where there are variants
        self.size = int(content["size"])  # of the square, whose pictures the finished model draws
        shape = next(shard["shape"] for shard in content["shards"] if shard["side"] == side)
        self.latent_size = self.size * self.parts[0].latents.shape[2] // int(shape[0])

    def condition(self, encode: Encode) -> "Side":
        """Give every row what its text is encoded to."""
        distinct = sorted({"", *self.texts})  # the empty text, first, is the unconditional branch
        position = {text: index for index, text in enumerate(distinct)}
        conditions = encode(distinct)
        for part in self.parts:
            part.rows = torch.tensor([position[text] for text in part.texts])
            part.conditions = conditions
        return self

    def prompts(self, most: int) -> tuple[str, ...]:
        """Some of its texts, the same every time; empty ones where it has none."""
        distinct = sorted({text for text in self.texts if text})
        return tuple(distinct)[:most] or ("",) * most

    def to(self, device: torch.device) -> "Side":
        """Move what the model sees to a device, in place."""
        conditions = {name: value.to(device) for name, value in self.parts[0].conditions.items()}
        for part in self.parts:
            part.latents, part.rows, part.conditions = part.latents.to(device), part.rows.to(device), conditions
        return self
