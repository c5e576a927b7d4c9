"""WebDataset: tars whose members form samples by their common name, ``0001.jpg`` with ``0001.txt`` or ``0001.json``.

Members are read in their order and never extracted. One tar, a glob, or a brace pattern such as ``{000..012}.tar``;
here or behind fsspec; plain, or compressed in a way that ``tarfile`` knows.
"""

import glob
import itertools
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.recipe import Collect

from .lines import Picker, Record
from .remote import explain, file_system, local_path
from .source import SUFFIXES, Item, problem_item, refuse, text_of
from .tree import MAX_TEXT, fingerprint

MAX_TARS = 100_000
NOTHING = Record(*[None] * len(Record._fields))


@dataclass(frozen=True)
class Tar:
    """A tar: its name in rows, how it is opened, and where it lies on this machine, with its size in bytes."""

    name: str
    open: Callable[[], BinaryIO]
    path: Path | None = None  # None: elsewhere, so it is read once from its start to its end
    size: int = 0
    fingerprint: str | None = None


@dataclass
class Sample:
    """The members of one key: pictures by their name in the tar, and what the texts beside them say."""

    key: str
    pictures: list[tuple[str, str, Item]] = field(default_factory=list)  # (extension, member's name, item)
    texts: dict[str, bytes] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (member's name, what is wrong)


def items(plan: Collect) -> Iterator[Item]:
    """Every sample of every tar, in their order; a tar that is cut or damaged ends with a row that says so.

    Raises :class:`RecipeError` when no tar is found, and :class:`ServiceUnavailable` when one cannot be opened.
    """
    picker, missing = Picker(plan.columns), []
    tars = find_tars(str(plan.path))
    for tar in tars:
        try:
            opened = tar.open()
        except FileNotFoundError:
            missing.append(problem_item(tar.name, "there is no such tar", plan.licence))
            continue
        with opened as file:
            try:
                for sample in _samples(tar, file, plan):
                    yield from _rows(tar.name, sample, picker, plan)
            except _Damaged as damage:
                yield problem_item(tar.name, f"the tar is damaged: {damage}", plan.licence)
    if len(missing) == len(tars):
        raise RecipeError(f"collect.path = {str(plan.path)!r}: there is no such tar")
    yield from missing


def find_tars(path: str) -> list[Tar]:
    """The tars that a path, glob or brace pattern names, there or not, in the order of the braces, each glob sorted."""
    here = local_path(path)
    system, pattern = (None, str(here)) if here is not None else file_system(path)
    found: dict[str, None] = {}
    for one in expand(pattern):
        if system is None:
            plain = not glob.has_magic(one) or Path(one).exists()
            matches = [one] if plain else sorted(glob.glob(one, recursive=True))  # noqa: PTH207
        else:
            matches = sorted(system.glob(one)) if glob.has_magic(one) else [one]
        found.update(dict.fromkeys(matches))
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0].rpartition("/")[0]
    names = {match: match.removeprefix(fixed).lstrip("/") for match in found}
    if system is None:
        return [_local_tar(name, Path(match)) for match, name in names.items()]
    return [Tar(name, partial(_open_remote, system, match)) for match, name in names.items()]


def expand(pattern: str) -> Iterator[str]:
    """``{000..012}`` and ``{a,b}`` as a shell expands them; raises :class:`RecipeError` for more than 100,000 names."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices: list[list[str]] = []
    count = 1
    for index, part in enumerate(parts):
        if index % 2 == 0:
            choices.append([part])
            continue
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        if numbers:
            first, last = int(numbers[1]), int(numbers[2])
            width = len(numbers[1]) if numbers[1].startswith("0") else 0
            many = range(first, last + 1) if last >= first else range(first, last - 1, -1)
            count *= len(many)
            if count > MAX_TARS:
                break
            choices.append([f"{number:0{width}d}" for number in many])
        else:
            options = part.split(",")
            count *= len(options)
            choices.append(options if len(options) > 1 else [f"{{{part}}}"])
        if count > MAX_TARS:
            break
    if count > MAX_TARS:
        raise RecipeError(f"collect.path = {pattern!r} names more than {MAX_TARS:,} tars")
    return ("".join(names) for names in itertools.product(*choices))


def _local_tar(name: str, path: Path) -> Tar:
    if not path.exists():
        return Tar(name, lambda: path.open("rb"))
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise RecipeError(f"collect.path: {path} is not a file")
    return Tar(name, lambda: path.open("rb"), path, facts.st_size, fingerprint(facts))


def _open_remote(system: Any, path: str) -> BinaryIO:
    try:
        file: BinaryIO = system.open(path, "rb")
    except FileNotFoundError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise ServiceUnavailable(f"{path} cannot be opened: {explain(error)}") from None
    return file


class _Damaged(Exception):
    """The rest of a tar cannot be read."""


class _Header(tarfile.TarInfo):
    """A member's header; notes on the tar whether its end mark was met, which ``tarfile`` does not tell."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Header":
        tar.ended = False  # type: ignore[attr-defined]
        try:
            member = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tar.ended = True  # type: ignore[attr-defined]
            raise
        if member.size < 0:  # would send the reading back to where it was
            raise tarfile.ReadError("a member has a negative size")
        return member


def _samples(tar: Tar, file: BinaryIO, plan: Collect) -> Iterator[Sample]:
    """Members that follow one another and have one key; raises :class:`_Damaged` after what could be read."""
    sample: Sample | None = None
    seekable = tar.path is not None and file.read(2) not in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5")
    if tar.path is not None:
        file.seek(0)
    mode: Literal["r:", "r|*"] = "r:" if seekable else "r|*"
    damage = None
    try:
        with tarfile.open(fileobj=file, mode=mode, tarinfo=_Header, errors="surrogateescape") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # they would all be kept
                base = member.name.rpartition("/")[2]
                if member.isdir() or base.startswith(".") or "__MACOSX/" in member.name:
                    continue
                stem, _, extension = base.partition(".")
                key = member.name[: len(member.name) - len(base)] + stem
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = Sample(key)
                _add(sample, extension.lower(), member, archive, tar if seekable else None, plan)
            if not getattr(archive, "ended", False):
                damage = "it ends without its end mark, so it was cut short"
    except (GeneratorExit, MemoryError, RecipeError):
        raise
    except Exception as error:  # a decoder meets hostile bytes: whatever it raises is a fault of the file
        damage = f"{explain(error)}; what comes after {sample.key if sample else 'its start'} is lost"
    if sample is not None and damage is not None:  # a picture whose caption is lost must not pass for one without
        sample.problems += [(name, "the tar is damaged in this sample or after it") for _, name, _ in sample.pictures]
        sample.pictures.clear()
        sample.texts.clear()
    if sample is not None:
        yield sample
    if damage is not None:
        raise _Damaged(damage)


def _add(
    sample: Sample, extension: str, member: tarfile.TarInfo, archive: tarfile.TarFile, tar: Tar | None, plan: Collect
) -> None:
    """Take one member into its sample; the bytes of a picture at once, or its place where ``tar`` can be sought in."""
    last = extension.rpartition(".")[2]
    is_picture, is_text = f".{last}" in SUFFIXES, extension in ("txt", "caption", "json", "cls")
    if not (is_picture or is_text):
        return
    if not member.isreg() or member.issparse():
        sample.problems.append((member.name, "not a plain file in the tar but a link, a device or a sparse file"))
        return
    if is_text:
        content = archive.extractfile(member)
        sample.texts[extension] = content.read(MAX_TEXT) if content else b""
        return
    mark = None
    if member.size > plan.max_bytes:
        read = refuse(f"more than collect.max_bytes = {plan.max_bytes:,} bytes")
    elif tar is not None and tar.path is not None:
        if member.offset_data + member.size > tar.size:
            raise tarfile.ReadError("unexpected end of data")
        read = partial(_read_at, tar, member.offset_data, member.size)
        mark = f"{tar.fingerprint}:{member.offset_data}:{member.size}"
    else:
        file = archive.extractfile(member)
        read = partial(bytes, file.read() if file else b"")
    item = Item(member.name, None, None, plan.licence, mark, member.size, read)
    sample.pictures.append((extension, member.name, item))


def _read_at(tar: Tar, offset: int, size: int) -> bytes:
    """The bytes at a place of a tar that did not change since it was listed."""
    assert tar.path is not None
    with tar.path.open("rb") as file:
        if fingerprint(os.fstat(file.fileno())) != tar.fingerprint:
            raise OSError("the tar changed while it was read")
        return os.pread(file.fileno(), size, offset)


def _rows(tar: str, sample: Sample, picker: Picker, plan: Collect) -> Iterator[Item]:
    """The items of a sample: one for each picture; of ``0001.jpg`` and ``0001.mask.png`` the first alone is one."""
    record, sidecar, problem = _texts(sample, picker, plan)
    plain = [entry for entry in sample.pictures if "." not in entry[0]]
    for _, name, item in plain or sample.pictures:
        yield Item(
            path=f"{tar}/{name}",
            caption=record.caption,
            label=record.label,
            licence=str(record.licence or plan.licence),
            fingerprint=None if problem else item.fingerprint,
            size=item.size,
            read=refuse(problem) if problem else item.read,
            origin=None if record.origin is None else str(record.origin),
            sidecar=sidecar,
        )
    for name, wrong in sample.problems:
        yield problem_item(f"{tar}/{name}", wrong, plan.licence)
    if not sample.pictures and not sample.problems and sample.texts:
        yield problem_item(f"{tar}/{sample.key}", "this sample has no picture", plan.licence, record.caption)


def _texts(sample: Sample, picker: Picker, plan: Collect) -> tuple[Record, str | None, str | None]:
    """(what the texts of a sample say, a second caption, what is wrong with them)."""
    record, problem = NOTHING, None
    if "json" in sample.texts:
        try:
            values = json.loads(sample.texts["json"].decode("utf-8-sig"))
            if not isinstance(values, dict):
                raise ValueError
            record = picker(values)
        except (ValueError, RecursionError):
            problem = f"{sample.key}.json beside it is not a JSON object"
    text = sample.texts.get("txt", sample.texts.get("caption"))
    caption, sidecar = record.caption, None
    if text is not None:
        first = plan.columns.caption is not None and caption is not None
        caption, sidecar = (caption, text_of(text)) if first else (text_of(text), caption)
    label = record.label
    if label is None and "cls" in sample.texts:
        label = text_of(sample.texts["cls"]).strip() or None
    origin = record.origin if record.origin is not None else record.url
    record = record._replace(caption=caption, label=label, origin=origin)
    return record, sidecar if isinstance(sidecar, str) and sidecar != caption else None, problem
