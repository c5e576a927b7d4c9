"""From accepted pictures to shards: resize, latents, and fixed-shape tensors that training reads as they are.

A shard holds the pictures of one side and one shape whose id starts with the same hex digits, so that one added,
changed or removed picture rewrites one shard. The others are taken from the cache by hard links; and of the one that
is rewritten, only what is new is decoded and encoded.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.collect.keep import picture_path
from darkroom.errors import RecipeError
from darkroom.quality.picture import working_path
from darkroom.recipe import Preprocess
from darkroom.stages import stage_digest
from darkroom.store import Store, digest_of, write_json

from . import index
from .buckets import Shape, assign, name_of, shapes
from .latents import ROWS, Encoder, Latents, group
from .masks import mask
from .pictures import fitted, resized
from .rowcache import PACK, Place, RowCache
from .variants import Variant, caption_of, variant

if TYPE_CHECKING:
    import pandas as pd
    import torch

Progress = Callable[[int, int], None]
__all__ = ["both_sides", "load_parts", "load_side", "preprocess", "read_checked", "read_index", "resized"]
MIN_SIDE = 2  # a spread, which every distance needs, takes two pictures
CACHE = "shardcache"
AT_ONCE, AT_ONCE_BYTES = 256, 128_000_000  # pictures decoded, encoded and then kept; a kill loses no more


@dataclass(frozen=True)
class Row:
    """One picture of a shard, as it is or as a variant; ``key`` names its tensors in the cache."""

    key: str
    working: str
    how: Variant
    transparent: str | None = None  # the picture's id, where its alpha channel is wanted and not all opaque


@dataclass(frozen=True)
class Shard:
    """What goes into one file; ``records`` say of each row what is no tensor."""

    name: str
    side: str
    shape: Shape
    rows: list[Row]
    records: list[dict[str, Any]]

    @property
    def tensors(self) -> str:
        """The name of its tensors in the cache: captions have no part in it."""
        return digest_of([row.key for row in self.rows])


def preprocess(
    checked: CheckedManifest,
    plan: Preprocess,
    latents: Latents,
    threads: int,
    store: Store,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
    fresh: bool = False,
) -> Shards:
    """Write the accepted rows as shards of pictures and of their latents.

    ``progress`` is told (rows ready, rows in all), a variant being a row. Raises :class:`RecipeError` when a side of
    the split is empty or the buckets cannot be had, and :class:`DiskFull` when the shards would not fit.
    """
    fields = {**plan.digest_fields(), "threads": threads}
    inputs = {"checked": checked.digest, "vae": latents.digest}
    among = shapes(plan.size, plan.buckets, plan.bucket_step, plan.max_bucket_aspect)

    def build(work: Path) -> dict[str, Any]:
        rows = both_sides(read_checked(checked))
        rows = rows.assign(bucket=assign(rows["width"], rows["height"], among) if len(among) > 1 else 0)
        count = len(rows) + int((rows["split"] == "train").sum()) * (plan.augment.variants - 1)
        store.need_room(count * plan.size**2 * 8, "preprocessing")
        planned = list(lay_out(rows, plan, among, latents, threads))
        encoder = Encoder(latents, threads, device)
        (work / "shards").mkdir()
        with RowCache(store.root, CACHE) as cache:
            fill(planned, cache, store, encoder, latents.masks, threads, progress)
            for shard in planned:
                place = work / "shards" / shard.name
                _link(cache.path(shard.tensors), place.with_suffix(".safetensors"))
                write_json(place.with_suffix(".json"), shard.records)
            write_json(work / "index.json", index.content(planned, rows, plan, among, latents, cache))
        rows.assign(bucket=[name_of(among[bucket]) for bucket in rows["bucket"]]).to_parquet(
            work / "rows.parquet", index=False
        )
        return {"device": device}

    return store.get_or_build(
        Shards, stage_digest("shards", fields, inputs), build, inputs=inputs, fields=fields, fresh=fresh
    )


def read_checked(checked: CheckedManifest) -> "pd.DataFrame":
    """The accepted rows."""
    import pandas as pd

    return pd.read_parquet(checked.path / "checked.parquet")


def read_index(shards: Shards) -> dict[str, Any]:
    """What the shards hold."""
    content: dict[str, Any] = json.loads((shards.path / "index.json").read_text("utf-8"))
    return content


def load_side(shards: Shards, which: str) -> tuple[dict[str, "torch.Tensor"], list[dict[str, Any]]]:
    """All rows of ``"train"`` or ``"validation"`` of shards that have one shape alone, in the order of their ids.

    Returns ``{"pixels": uint8 N3HW, "latents": float32 NChw}`` and the rows' ids, captions and labels.
    """
    (part,) = load_parts(shards, which)
    return part


def load_parts(
    shards: Shards, which: str, names: tuple[str, ...] = ("pixels", "latents")
) -> list[tuple[dict[str, "torch.Tensor"], list[dict[str, Any]]]]:
    """The same for each shape that has rows on this side, from the tallest; only the tensors of these ``names``."""
    import torch
    from safetensors import safe_open

    found: dict[tuple[int, ...], list[str]] = {}
    for shard in read_index(shards)["shards"]:
        if shard["side"] == which:
            found.setdefault(tuple(shard["shape"]), []).append(shard["name"])
    parts = []
    for files in found.values():
        tensors: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        rows: list[dict[str, Any]] = []
        for file in files:
            rows += json.loads((shards.path / "shards" / f"{file}.json").read_text("utf-8"))
            with safe_open(shards.path / "shards" / f"{file}.safetensors", "pt") as content:
                for name in names:
                    tensors[name].append(content.get_tensor(name))
        parts.append(({name: torch.cat(pieces) for name, pieces in tensors.items()}, rows))
    return parts


def both_sides(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows in the order of the shards; raises :class:`RecipeError` when a side of the split is empty."""
    for which in ("train", "validation"):
        count = int((rows["split"] == which).sum())
        if count < MIN_SIDE:
            raise RecipeError(
                f"preprocess: {count} of the {len(rows)} accepted pictures fell on the {which} side of the split, and "
                f"{MIN_SIDE} are needed; add pictures or change split.validation_share"
            )
    return rows.sort_values(["split", "id", "row_id"], ignore_index=True)


def lay_out(
    rows: "pd.DataFrame", plan: Preprocess, among: tuple[Shape, ...], latents: Latents, threads: int
) -> Iterator[Shard]:
    """The shards of rows with a ``bucket`` each: by side, shape and the first digits of the id, in this order."""
    names = ["row_id", "id", "caption", "label", "split", "bucket", "working", "alpha"]
    table = rows.sort_values(["split", "bucket"], kind="stable")[names].astype(object)  # once, as it is slow in parts
    table = table.where(table.notna(), None)
    context = {shape: digest_of([ROWS, "float32", latents.digest, threads, list(shape)]) for shape in among}
    every = cast("list[dict[str, Any]]", table.to_dict("records"))
    for (side, bucket, prefix), some in groupby(
        every, key=lambda row: (row["split"], row["bucket"], row["id"][: plan.shard_prefix])
    ):
        shape = among[bucket]
        made, records = [], []
        for row in some:
            picture_id, working = row["id"], row["working"]
            record = {name: row[name] for name in ("row_id", "id", "caption", "label")}
            transparent = picture_id if latents.masks and (row["alpha"] or 0) > 0 else None
            for number in range(plan.augment.variants if side == "train" else 1):
                how = variant(picture_id, number, plan.augment)
                key = hashlib.sha256(f"{context[shape]}:{working}:{how.transform()}".encode()).hexdigest()
                made.append(Row(key, working, how, transparent))
                caption = caption_of(row["caption"], picture_id, number, plan.augment)
                records.append({**record, "caption": caption, **how.record()})
        name = f"{side}-{prefix}" if len(among) == 1 else f"{side}-{name_of(shape)}-{prefix}"
        yield Shard(name, side, shape, made, records)


def fill(
    planned: list[Shard],
    cache: RowCache,
    store: Store,
    encoder: Encoder,
    masks: bool,
    threads: int,
    progress: Progress,
) -> None:
    """Have the tensors of every shard in the cache; what no earlier run made is decoded and encoded, shape by shape.

    Shards are gathered in windows that miss about :data:`AT_ONCE` rows together: calls of the autoencoder are full also
    where each shard misses one picture, and what lies on the disk twice meanwhile stays little.
    """
    total, done = sum(len(shard.rows) for shard in planned), 0
    bridges: set[str] = set()
    window: list[tuple[Shard, dict[str, Place]]] = []
    missing: dict[str, tuple[Shape, Row]] = {}
    for position, shard in enumerate(planned, start=1):
        if cache.is_whole(shard.tensors):
            done += len(shard.rows)
        else:
            places = cache.find(row.key for row in shard.rows)
            window.append((shard, places))
            missing |= {row.key: (shard.shape, row) for row in shard.rows if row.key not in places}
            done += sum(row.key in places for row in shard.rows)
        progress(done, total)
        if len(missing) < AT_ONCE and position < len(planned):
            continue
        new: dict[str, Place] = {}
        for made in _make(missing, cache, store, encoder, masks, threads):
            new |= made
            progress(min(total, done + len(new)), total)
        for waiting, known in window:
            where = {**new, **known}
            cache.gather(waiting.tensors, [row.key for row in waiting.rows], where)
            bridges |= {place.file for place in known.values() if place.file.startswith(PACK)}
        cache.drop({place.file for place in new.values()})
        done += sum(row.key not in known for waiting, known in window for row in waiting.rows)
        window, missing = [], {}
    cache.drop(bridges)  # left by a run that was killed
    progress(total, total)


def _make(
    missing: dict[str, tuple[Shape, Row]], cache: RowCache, store: Store, encoder: Encoder, masks: bool, threads: int
) -> Iterator[dict[str, Place]]:
    """Decode and encode rows, some at a time, each time keeping what was made."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import torch

    with ThreadPoolExecutor(threads) as pool:  # decoders and resizers work outside Python's lock
        for shape in sorted({shape for shape, _ in missing.values()}):
            rows = [row for its, row in missing.values() if its == shape]
            together = group(*shape)
            most = min(AT_ONCE, AT_ONCE_BYTES // (3 * shape[0] * shape[1])) // together * together or together
            for start in range(0, len(rows), most):
                some = rows[start : start + most]
                copies = [working_path(store.root, row.working) for row in some]
                pictures = pool.map(fitted, copies, [shape] * len(some), [row.how for row in some])
                pixels = np.stack(list(pictures))
                latents = encoder(torch.from_numpy(pixels)).contiguous().numpy()
                columns = {"pixels": pixels, "latents": latents}
                if masks:
                    originals = [picture_path(store, row.transparent) if row.transparent else None for row in some]
                    made = pool.map(
                        mask, originals, repeat(shape), [row.how for row in some], repeat(latents.shape[2:])
                    )
                    columns["mask"] = np.stack(list(made))
                yield cache.add([row.key for row in some], columns)


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the disk has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
