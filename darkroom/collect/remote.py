"""Folders and files behind any fsspec address: S3, GCS, a zip, memory."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from darkroom.errors import RecipeError, ServiceUnavailable

from .tree import MAX_TEXT, Entry, Listing, hidden, inside

# What file systems say of a file that changes with its bytes; the first that is there is used.
DIGESTS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "checksum", "crc32c", "CRC")
TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "date_time")


def is_address(path: str) -> bool:
    """Whether a recipe's path is an fsspec address rather than a path of this machine."""
    return "://" in path or re.match(r"[a-z0-9+]+::", path) is not None


def local_path(path: str) -> Path | None:
    """The path of this machine that a recipe's path means, or None for an address of elsewhere."""
    if not is_address(path):
        return Path(path)
    for protocol in ("file://", "local://"):
        if path.startswith(protocol) and "::" not in path:
            return Path(path.removeprefix(protocol))
    return None


def last_part(path: str) -> str:
    """The name at the end of a path or an address: ``s3://bucket/photos/`` -> ``photos``."""
    links = [link.partition("://")[2] if "://" in link else link for link in path.split("::")]
    parts = [part for link in links for part in link.split("/")[-1:] if part]
    trimmed = [part for link in links if (part := link.rstrip("/").rpartition("/")[2])]
    return next(iter(parts or trimmed), path.partition("://")[0])


def file_system(address: str) -> tuple[Any, str]:
    """(file system, path in it) of an address; raises :class:`RecipeError` for one that cannot be used."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        # A process that lives long must not go on with an earlier run's listing, or its open zip.
        found, root = url_to_fs(address, skip_instance_cache=True)
    except ImportError as error:
        extra = {"s3": "darkroom[s3]", "s3a": "darkroom[s3]", "gs": "darkroom[gcs]", "gcs": "darkroom[gcs]"}
        package = extra.get(address.partition(":")[0])
        hint = f": install it with pip install '{package}'" if package else ""
        raise RecipeError(f"collect.path = {address!r} needs a package that is not installed ({error}){hint}") from None
    except FileNotFoundError as error:
        raise RecipeError(f"collect.path = {address!r}: there is no such file or folder ({error})") from None
    except ValueError as error:
        raise RecipeError(f"collect.path = {address!r} is not an address that fsspec knows: {error}") from None
    except Exception as error:  # every file system has errors of its own
        raise RecipeError(f"collect.path = {address!r} cannot be opened: {explain(error)}") from None
    found.invalidate_cache()
    return found, root


def explain(error: Exception) -> str:
    """An error of a file system in one line."""
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Remote:
    """A folder behind an fsspec address."""

    def __init__(self, address: str, opened: tuple[Any, str] | None = None) -> None:
        """Raises :class:`RecipeError` for an address that cannot be used."""
        self.address = address
        self._system, self._root = opened or file_system(address)
        self.remote = bool(getattr(self._system, "async_impl", False))
        self._folders: dict[str, dict[str, Any]] = {}  # folder -> its files' facts by name

    @classmethod
    def beside(cls, address: str) -> "tuple[Remote, str]":
        """(the folder that the file at an address lies in, the file's name)."""
        system, path = file_system(address)
        folder, _, name = path.rpartition("/")
        return cls(address, (system, folder)), name

    def listing(self, without: Path | None = None) -> Listing:  # noqa: ARG002
        """Every file below the folder, hidden ones left out; ``without`` means nothing here."""
        try:
            files = self._system.find(self._root, detail=True)
        except (FileNotFoundError, PermissionError) as error:
            raise RecipeError(f"collect.path = {self.address!r} cannot be read: {explain(error)}") from None
        except Exception as error:  # every file system has errors of its own
            raise ServiceUnavailable(f"{self.address} cannot be listed: {explain(error)}") from None
        found = Listing()
        twice = self._twice()
        for full, facts in files.items():
            path = self._relative(full)
            if facts.get("type") == "directory" or any(hidden(part) for part in path.split("/") if part != ".."):
                continue
            if found.sort(path, _fingerprint(facts)) == "picture":
                found.pictures[path] = Entry(facts.get("size"), _fingerprint(facts))
                if full in twice:
                    found.pictures[path] = Entry(problem="the archive has several files of this name")
        return found

    def _twice(self) -> set[str]:
        """Names that an archive has several times: it would give the last file for each."""
        archive = getattr(self._system, "zip", None)
        names = Counter(archive.namelist()) if archive else Counter()
        return {name for name, count in names.items() if count > 1}

    def _relative(self, full: str) -> str:
        root = self._root.strip("/")
        return full.lstrip("/").removeprefix(root).lstrip("/") if root else full.lstrip("/")

    def find(self, path: str) -> Entry:
        """The file at a path, whoever named it: by one listing of each folder, not by one question for each file."""
        try:
            full = self._full(path)
            folder = full.rpartition("/")[0]
            if folder not in self._folders:
                entries = self._system.ls(folder, detail=True)
                self._folders[folder] = {entry["name"].strip("/"): entry for entry in entries}
            facts = self._folders[folder].get(full.strip("/"))
        except FileNotFoundError:
            facts = None
        except OSError as error:
            return Entry(problem=error.strerror or str(error))
        except Exception as error:  # every file system has errors of its own
            return Entry(problem=explain(error))
        if facts is None:
            return Entry(problem="No such file or directory")
        if facts.get("type") == "directory":
            return Entry(problem="a folder, not a file")
        return Entry(facts.get("size"), _fingerprint(facts))

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; raises ``OSError``."""
        try:
            file: BinaryIO = self._system.open(self._full(path), "rb")
        except Exception as error:  # every file system has errors of its own
            raise self._wrong(error) from None
        return file

    def read(self, path: str) -> bytes:
        """The bytes of a file; raises ``OSError``, or :class:`ServiceUnavailable` when nothing can be read any more."""
        try:
            content: bytes = self._system.cat_file(self._full(path))
        except Exception as error:  # every file system has errors of its own
            raise self._wrong(error) from None
        return content

    def texts(self, paths: Iterable[str]) -> dict[str, bytes | OSError]:
        """The first :data:`MAX_TEXT` bytes of small files, or why each cannot be read; many at a time if possible."""
        full = {self._full(path): path for path in paths}
        if not full:
            return {}
        if not self.remote:
            found: dict[str, Any] = {}
            for name in full:
                try:
                    with self._system.open(name, "rb") as file:
                        found[name] = file.read(MAX_TEXT)
                except Exception as error:  # every file system has errors of its own
                    found[name] = error
        else:
            names = list(full)
            contents = self._system.cat_ranges(names, [0] * len(names), [MAX_TEXT] * len(names), on_error="return")
            found = dict(zip(names, contents, strict=True))
        return {
            full[name]: content if isinstance(content, bytes) else self._wrong(content)
            for name, content in found.items()
        }

    def _full(self, path: str) -> str:
        return posixpath.join(self._root, inside(path)) if self._root else inside(path)

    def _wrong(self, error: Exception) -> OSError:
        """The error of one file; when the whole place does not answer either, that is raised instead."""
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            return error
        try:
            self._system.invalidate_cache()
            self._system.ls(self._root, detail=False)
        except Exception as worse:  # every file system has errors of its own
            raise ServiceUnavailable(f"{self.address} does not answer any more: {explain(worse)}") from None
        return OSError(explain(error))


def _fingerprint(facts: dict[str, Any]) -> str | None:
    """What promises equal bytes: a digest with the size, or the time of the last change with the size."""
    size = facts.get("size")
    digest = next((f"{key}={facts[key]}" for key in DIGESTS if facts.get(key)), "")
    changed = next((f"{key}={facts[key]}" for key in TIMES if facts.get(key)), "")
    if size is None or not (digest or changed):
        return None
    # A CRC is too short to stand alone.
    return f"{size}:{digest}:{changed}" if digest.startswith("CRC") or not digest else f"{size}:{digest}"
