"""A data set of the Hugging Face hub, or a folder that ``datasets`` wrote or can read; an optional extra.

Pictures are taken as the bytes that the data set holds, never decoded and encoded again.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.recipe import Collect
from darkroom.store import Store

from .lines import USUAL, Picker, Record
from .source import Item, refuse
from .table import Web, rows
from .tree import FLAGS, fingerprint

PICTURE_COLUMNS = (*USUAL["file"], "img", "picture")


def items(plan: Collect, store: Store, web: Web | None = None, cache: Path | None = None) -> Iterator[Item]:
    """Every row of the split; ``cache`` is where ``datasets`` keeps what it prepares, None its own place.

    A data set that has addresses instead of pictures is fetched by ``web``, as a table is. Raises
    :class:`RecipeError` for a data set, configuration, split or column that is not there, and
    :class:`ServiceUnavailable` when the hub does not answer.
    """
    data = load(plan, cache)
    picker = Picker(plan.columns)
    names = list(data.column_names)
    where = f"{plan.path} (split {plan.split})"
    picker.need(names, where)
    column = _picture_column(data, plan)
    if column is None:
        if not picker.names(names, "url"):
            raise RecipeError(
                f"{where} has no column of pictures or addresses: name one in collect.columns.file or .url; "
                f"it has {', '.join(names)}"
            )
        yield from rows(_lines(data), f"{plan.split}", None, plan, store, web)
        return
    from datasets import Image  # type: ignore[import-untyped]

    promise = _promise(data)  # before the cast, which makes another data set of it
    if isinstance(data.features[column], Image):
        data = data.cast_column(column, Image(decode=False))
    yield from _items(data, column, promise, picker, plan)


def load(plan: Collect, cache: Path | None = None) -> Any:
    """The split as a ``datasets.Dataset``."""
    try:
        import datasets
        from datasets.exceptions import DatasetNotFoundError  # type: ignore[import-untyped]
    except ImportError:
        raise RecipeError(
            "collect.source = 'huggingface' needs the package datasets: pip install 'darkroom[huggingface]'"
        ) from None
    folder, name = Path(str(plan.path)).expanduser(), str(plan.path)
    saved = [marker for marker in ("dataset_dict.json", "state.json") if (folder / marker).is_file()]
    try:
        if saved:
            found = datasets.load_from_disk(str(folder))
            if isinstance(found, datasets.DatasetDict):
                if plan.split not in found:
                    raise RecipeError(f"collect.split = {plan.split!r}: {name} has {', '.join(found)}")
                found = found[plan.split]
        else:
            path = str(folder) if folder.is_dir() else name
            found = datasets.load_dataset(
                path, plan.config, split=plan.split, revision=plan.revision, cache_dir=str(cache) if cache else None
            )
    except RecipeError:
        raise
    except (DatasetNotFoundError, FileNotFoundError) as error:
        raise RecipeError(f"collect.path = {name!r}: {_first_line(error)}") from None
    except (ConnectionError, TimeoutError) as error:
        raise ServiceUnavailable(f"{name} could not be had from the hub: {_first_line(error)}") from None
    except (ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise RecipeError(f"collect: {name} cannot be read: {_first_line(error.__cause__ or error)}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("huggingface_hub", "httpx", "httpx2", "requests", "aiohttp"):
            raise ServiceUnavailable(f"{name} could not be had from the hub: {_first_line(error)}") from None
        raise
    return found


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:500] or type(error).__name__


def _picture_column(data: Any, plan: Collect) -> str | None:
    """The column of pictures: the recipe's, or the first usual name among those that hold pictures, or the only one."""
    from datasets import Image, Value

    def holds_pictures(feature: Any) -> bool:
        return isinstance(feature, Image) or (
            isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
        )

    chosen = plan.columns.file
    if chosen is not None:
        if not holds_pictures(data.features[chosen]):
            raise RecipeError(f"collect.columns.file = {chosen!r} holds no pictures but {data.features[chosen]}")
        return chosen
    if plan.columns.url is not None:
        return None
    found = [name for name, feature in data.features.items() if holds_pictures(feature)]
    usual = [name for name in PICTURE_COLUMNS if name in found]
    if not usual and len(found) > 1:
        raise RecipeError(
            f"{plan.path} has several columns of pictures ({', '.join(found)}): name one in collect.columns.file"
        )
    return next(iter(usual or found), None)


def _promise(data: Any) -> str | None:
    """What changes when any row may have changed: the data set's own fingerprint, and its files' sizes and times."""
    files = [Path(file["filename"]) for file in data.cache_files]
    if not files:
        return None
    facts = [(file.name, (found := file.stat()).st_size, found.st_mtime_ns, found.st_ino) for file in files]
    return hashlib.sha256(f"{data._fingerprint}:{facts}".encode()).hexdigest()[:32]


def _lines(data: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, values in enumerate(data):
        yield number, _named(data, values)


def _named(data: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Numbers of classes replaced by their names."""
    from datasets import ClassLabel

    return {
        key: _class(feature, value) if isinstance(feature := data.features[key], ClassLabel) else value
        for key, value in values.items()
    }


def _class(feature: Any, value: Any) -> Any:
    return feature.names[value] if isinstance(value, int) and 0 <= value < len(feature.names) else None


def _items(data: Any, column: str, promise: str | None, picker: Picker, plan: Collect) -> Iterator[Item]:
    number, roots = 0, _roots(plan)
    used = {name for what in Record._fields for name in picker.names(data.column_names, what)} - {column}
    for batch in data.with_format("arrow").iter(batch_size=256):  # slices of mapped files: no picture is read here
        pictures = batch[column]
        for index, values in enumerate(batch.select(sorted(used)).to_pylist()):
            record = picker(_named(data, values))
            found = _picture(pictures[index], roots, f"{promise}:{number}" if promise else None)
            yield Item(
                path=f"{plan.split}/{found.name or f'{number:08d}'}",
                caption=record.caption,
                label=record.label,
                licence=str(record.licence or plan.licence),
                fingerprint=found.fingerprint,
                size=found.size,
                read=found.read,
                origin=None if record.origin is None else str(record.origin),
            )
            number += 1


class _Picture(NamedTuple):
    name: str | None
    size: int | None
    fingerprint: str | None
    read: Callable[[], bytes]


def _picture(cell: Any, roots: list[str], mark: str | None) -> _Picture:
    """The picture of an Arrow value: ``{bytes, path}``, or the bytes; ``mark`` is the print of held bytes."""
    import pyarrow as pa

    content, path = cell, None
    if cell.is_valid and isinstance(cell, pa.StructScalar):
        content, path = cell["bytes"], cell["path"].as_py()
    name = os.path.basename(path) if path else None  # noqa: PTH119  (the path may be of another system)
    if content.is_valid:
        return _Picture(name, content.as_buffer().size, mark, content.as_py)
    if not path:
        return _Picture(name, None, None, refuse("this row has no picture"))
    real = os.path.realpath(path)  # it may be anything: only files of the data set itself are opened
    if not any(real.startswith(f"{root}{os.sep}") for root in roots):
        return _Picture(name, None, None, refuse("the row names a file that is not part of the data set"))
    try:
        facts = os.stat(real)  # noqa: PTH116
    except OSError as error:
        return _Picture(name, None, None, refuse(error.strerror or str(error)))
    return _Picture(name, facts.st_size, fingerprint(facts), partial(_read_file, real))


def _roots(plan: Collect) -> list[str]:
    """The folders whose files a row may name: the data set's own, and those that ``datasets`` keeps."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    own = [str(plan.path)] if Path(str(plan.path)).is_dir() else []
    kept = [str(datasets.config.HF_DATASETS_CACHE), str(datasets.config.DOWNLOADED_DATASETS_PATH), HF_HUB_CACHE]
    return [os.path.realpath(folder) for folder in (*own, *kept)]


def _read_file(path: str) -> bytes:
    handle = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("not a file")
    with os.fdopen(handle, "rb") as file:
        return file.read()
