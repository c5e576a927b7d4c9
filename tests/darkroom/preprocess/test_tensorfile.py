"""Rows in files: safetensors' own bytes, read back by key in any order."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from darkroom.preprocess import tensorfile
from darkroom.preprocess.rowcache import RowCache
from darkroom.preprocess.tensorfile import Column

RANDOM = np.random.default_rng(0)


def rows(count: int) -> dict[str, np.ndarray]:
    pixels = RANDOM.integers(0, 256, (count, 3, 5, 7), dtype=np.uint8)
    return {"pixels": pixels, "latents": RANDOM.normal(size=(count, 2, 3)).astype(np.float32)}


def test_the_bytes_are_safetensors_own(tmp_path: Path) -> None:
    tensors = rows(11)
    save_file(tensors, tmp_path / "theirs")
    spec = {name: Column(values.dtype, values.shape) for name, values in tensors.items()}
    tensorfile.write(tmp_path / "ours", spec, lambda name: np.array_split(tensors[name], 4))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    found = tensorfile.read(tmp_path / "theirs")
    assert all(np.array_equal(found[name], values) for name, values in tensors.items())
    with pytest.raises(ValueError, match="latents has"):
        tensorfile.write(tmp_path / "short", spec, lambda name: [tensors[name][:10]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_a_file_that_was_cut_is_not_read(tmp_path: Path) -> None:
    save_file(rows(3), tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    for length in (0, 5, 60, len(content) - 1):
        (tmp_path / "file").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut short|no safetensors|Expecting|Unterminated|delimiter"):
            tensorfile.read(tmp_path / "file")


def test_rows_come_back_by_key_from_wherever_they_lie(tmp_path: Path) -> None:
    first, second = rows(6), rows(4)
    with RowCache(tmp_path, "kind") as cache:
        places = cache.add([f"a{row}" for row in range(6)], first)
        cache.add([f"b{row}" for row in range(4)], second)
        keys = ["b3", "a1", "a2", "a3", "b0", "a5"]
        found = cache.find([*keys, "unknown"])
        assert set(found) == set(keys)
        cache.gather("shard", keys, found)
        expected = np.concatenate(
            [second["pixels"][3:4], first["pixels"][1:4], second["pixels"][:1], first["pixels"][5:]]
        )
        assert np.array_equal(load_file(cache.path("shard"))["pixels"], expected)
        cache.drop({place.file for place in places.values()})
    with RowCache(tmp_path, "kind") as cache:
        found = cache.find([f"a{row}" for row in range(6)])
        assert set(found) == {"a1", "a2", "a3", "a5"}  # the others went with their file
        assert np.array_equal(cache.read(["a5", "a1"], found, "latents"), first["latents"][[5, 1]])
