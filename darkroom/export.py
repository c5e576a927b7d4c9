"""Checked pictures for other trainers: imagefolder with metadata.jsonl, kohya's folders, or WebDataset tars.

Nothing that identifies people goes along: pictures are the working copies (upright, sRGB, PNG, without metadata, of
the size that check keeps), or, where the file allows it, the original's own bytes without its metadata.
"""

import csv
import io
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .artifacts import CheckedManifest
from .collect.manifest import picture_path
from .errors import DarkroomError, RecipeError
from .export_bytes import without_metadata
from .quality.picture import working_path
from .store import Store, need_room, write_json

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["imagefolder", "kohya", "webdataset"]
Pictures = Literal["original", "working"]
Sides = Literal["both", "train", "validation"]
LICENCES, FACTS = "LICENSES.csv", "export.json"
ORIGINAL, WORKING = "original without metadata", "working copy"
TAR_BYTES = 1_000_000_000
# What check notes on a picture that reads the same without its metadata; of others the working copy is exported.
HARMLESS = ("GPS removed", "author removed")


@dataclass(frozen=True)
class Sample:
    """One exported picture: its file's stem and suffix, and the row it came from."""

    stem: str
    suffix: str
    content: bytes
    kind: str
    row: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name, safe and unique."""
        return f"{self.stem}{self.suffix}"


@dataclass(frozen=True)
class Exported:
    """What was written: pictures by side, and by kind (original or working copy)."""

    folder: Path
    sides: dict[str, int]
    kinds: dict[str, int]


def export(
    checked: CheckedManifest,
    store: Store,
    to: Format,
    out: Path,
    *,
    side: Sides = "both",
    pictures: Pictures = "original",
    repeats: int = 1,
    tar_bytes: int = TAR_BYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the accepted rows of ``side`` to the new or empty folder ``out``; it appears whole or not at all.

    imagefolder: ``SIDE/NAME`` and ``SIDE/metadata.jsonl`` (file_name, text, label, license, source, id).
    kohya: ``SIDE/REPEATS_LABEL/NAME`` with the caption in a .txt beside it. webdataset: ``SIDE-000000.tar``, each of
    about ``tar_bytes`` at most, with NAME.png or .jpg, .txt and .json for each picture; equal rows give equal bytes.
    All have ``LICENSES.csv`` (licence and source of every file) and ``export.json`` (what was exported, and whether
    each file is the original without metadata or the working copy). ``progress`` is told (pictures done, in all).

    Raises :class:`RecipeError` for a folder that is not empty or a side without rows, :class:`DiskFull`, and
    :class:`DarkroomError` when a picture is gone from the store.
    """
    rows = _rows(checked, side)
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"--out {out} is not an empty folder: name a new one, nothing is overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    need_room(out.parent, int(rows["bytes"].sum()) * 2 + store.reserve, "the export")
    work = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    kinds: Counter[str] = Counter()
    sides: Counter[str] = Counter()
    samples = _samples(rows, store, pictures)
    try:
        if to == "imagefolder":
            written = _imagefolder(work, samples)
        elif to == "kohya":
            written = _kohya(work, samples, repeats, folder_names(rows["label"].astype(object)))
        else:
            written = _webdataset(work, samples, tar_bytes)
        with (work / LICENCES).open("w", encoding="utf-8", newline="") as table:
            licences = csv.writer(table)
            licences.writerow(["file", "licence", "source", "origin", "id", "picture"])
            for done, (file, sample) in enumerate(written, start=1):
                said = [sample.row[name] for name in ("licence", "source", "origin", "id")]
                licences.writerow([_cell(value) for value in [file, *said, sample.kind]])
                kinds[sample.kind] += 1
                sides[sample.row["split"]] += 1
                progress(done, len(rows))
        facts = {"format": to, "checked": checked.digest, "sides": dict(sides), "pictures": dict(kinds)}
        write_json(work / FACTS, facts)
        os.replace(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Exported(out, dict(sides), dict(kinds))


def safe_stem(path: str, row_id: str) -> str:
    """A file name's stem from a hostile path: plain letters, digits and dashes, unique by the row's id."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", path.rsplit("/", 1)[-1].rsplit(".", 1)[0]).strip("-")[:40]
    return f"{plain}-{row_id[:16]}" if plain else row_id[:16]


def folder_names(labels: Iterable[Any], default: str = "picture") -> dict[str | None, str]:
    """A safe folder name for each label, different for different labels also where case does not count."""
    names: dict[str | None, str] = {}
    taken: set[str] = set()
    for label in sorted({label if isinstance(label, str) else None for label in labels}, key=lambda name: name or ""):
        plain = re.sub(r"[^\w]+", "-", label or "").strip("-_")[:60] or default
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.lower())
        names[label] = name
    return names


def _rows(checked: CheckedManifest, side: Sides) -> "pd.DataFrame":
    import pandas as pd

    rows = pd.read_parquet(checked.path / "checked.parquet")
    if side != "both":
        rows = rows[rows["split"] == side]
    if rows.empty:
        raise RecipeError(f"there is nothing to export: no accepted picture is on the side {side!r}")
    # By row_id, which is a digest: classes are mixed, as trainers that read on and on want them, and stay in place.
    return rows.sort_values(["split", "row_id"], ignore_index=True)


def _samples(rows: "pd.DataFrame", store: Store, pictures: Pictures) -> Iterator[Sample]:
    names = ["row_id", "id", "path", "source", "origin", "licence", "caption", "label", "split", "working", "converted"]
    table = rows.reindex(columns=names).astype(object)
    table = table.where(table.notna(), None)
    for row in cast("Iterator[dict[str, Any]]", iter(table.to_dict("records"))):
        stem = safe_stem(row["path"], row["row_id"])
        found = _original(row, store) if pictures == "original" else None
        content, suffix, kind = (*found, ORIGINAL) if found else (_copy(row, store), ".png", WORKING)
        yield Sample(stem, suffix, content, kind, row)


def _original(row: dict[str, Any], store: Store) -> tuple[bytes, str] | None:
    """The original without metadata, where it then reads as the working copy does, and its suffix."""
    converted = row["converted"]
    if converted is None or any(what not in HARMLESS for what in converted):
        return None
    return without_metadata(_read(picture_path(store, row["id"]), row))


def _copy(row: dict[str, Any], store: Store) -> bytes:
    return _read(working_path(store.root, row["working"]), row)


def _read(path: Path, row: dict[str, Any]) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DarkroomError(f"{row['path']!r} is gone from the store ({error}): run `darkroom check` again") from None


Written = Iterator[tuple[str, Sample]]  # each sample with the path that it has in the export


def _imagefolder(folder: Path, samples: Iterator[Sample]) -> Written:
    for side, some in groupby(samples, key=lambda sample: str(sample.row["split"])):
        (folder / side).mkdir()
        with (folder / side / "metadata.jsonl").open("w", encoding="utf-8") as lines:
            for sample in some:
                (folder / side / sample.name).write_bytes(sample.content)
                line = {"file_name": sample.name, "text": sample.row["caption"], "label": sample.row["label"]}
                lines.write(json.dumps(line | _provenance(sample.row), ensure_ascii=False) + "\n")
                yield f"{side}/{sample.name}", sample


def _kohya(folder: Path, samples: Iterator[Sample], repeats: int, names: dict[str | None, str]) -> Written:
    for sample in samples:
        place = Path(sample.row["split"]) / f"{repeats}_{names[sample.row['label']]}"
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / sample.name).write_bytes(sample.content)
        if sample.row["caption"] is not None:
            (folder / place / f"{sample.stem}.txt").write_text(sample.row["caption"], "utf-8")
        yield (place / sample.name).as_posix(), sample


def _webdataset(folder: Path, samples: Iterator[Sample], tar_bytes: int) -> Written:
    side, number = "", 0
    with ExitStack() as files:
        tar: tarfile.TarFile | None = None
        for sample in samples:
            members = _members(sample)
            needed = sum(512 + -(-len(content) // 512) * 512 for content in members.values())
            full = tar is not None and tar.offset > 0 and tar.offset + needed > tar_bytes
            if tar is None or full or side != sample.row["split"]:
                files.close()
                side, number = sample.row["split"], number + 1 if side == sample.row["split"] else 0
                place = folder / f"{side}-{number:06d}.tar"
                tar = files.enter_context(tarfile.open(place, "w", format=tarfile.USTAR_FORMAT))
            for name, content in sorted(members.items()):
                member = tarfile.TarInfo(name)  # no owner, no time: equal rows give equal bytes
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            yield f"{side}-{number:06d}.tar/{sample.name}", sample


def _members(sample: Sample) -> dict[str, bytes]:
    """The files of one WebDataset sample."""
    described = {"text": sample.row["caption"], "label": sample.row["label"], "row_id": sample.row["row_id"]}
    text = json.dumps(described | _provenance(sample.row), ensure_ascii=False, sort_keys=True)
    members = {sample.name: sample.content, f"{sample.stem}.json": text.encode()}
    if sample.row["caption"] is not None:
        members[f"{sample.stem}.txt"] = sample.row["caption"].encode()
    return members


def _provenance(row: dict[str, Any]) -> dict[str, Any]:
    return {"license": row["licence"], "source": row["source"], "origin": row["origin"], "id": row["id"]}


def _cell(value: object) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
