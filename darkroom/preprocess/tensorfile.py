"""Safetensors files written and read row by row, so that a shard need never be in memory as a whole.

The bytes are those that ``safetensors`` itself would write; https://github.com/huggingface/safetensors describes them.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAMES: dict[np.dtype, str] = {np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8", np.dtype(np.int64): "I64"}
TYPES = {name: dtype for dtype, name in NAMES.items()}
Blocks = Callable[[str], Iterable[np.ndarray]]
LONGEST_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class Column:
    """A tensor of a file: its type, and its shape with the rows first."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write(path: Path, columns: Mapping[str, Column], blocks: Blocks) -> None:
    """Write a file, atomically; ``blocks(name)`` yields the rows of a column, some at a time and in order.

    Raises ``ValueError`` when the blocks of a column are not of its size.
    """
    names = sorted(columns, key=lambda name: (-columns[name].dtype.itemsize, name))  # the widest first, as the format
    header: dict[str, object] = {}
    start = 0
    for name in names:
        column = columns[name]
        end = start + column.bytes
        header[name] = {"dtype": NAMES[column.dtype], "shape": list(column.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                before = file.tell()
                for block in blocks(name):
                    file.write(np.ascontiguousarray(block, columns[name].dtype).data)
                if file.tell() - before != columns[name].bytes:
                    raise ValueError(f"{path.name}: {name} has {file.tell() - before} bytes, not {columns[name].bytes}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, mapped and not read. Raises ``OSError`` or ``ValueError`` for one that is gone or cut."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
    found: dict[str, np.ndarray] = {}
    size = path.stat().st_size
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        column = Column(TYPES[entry["dtype"]], tuple(entry["shape"]))
        start, end = entry["data_offsets"]
        if end - start != column.bytes or 8 + length + end > size:
            raise ValueError(f"{path} is cut short")
        found[name] = np.memmap(path, column.dtype, "r", 8 + length + start, column.shape)
    return found
