"""What of a home folder may go, once it is known what stays: each folder of the store has its rule here."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from darkroom.generate import FOLDER
from darkroom.preprocess.shards import CACHE as SHARD_CACHE
from darkroom.preprocess.texts import CACHE as TEXT_CACHE
from darkroom.store import Store
from darkroom.training.estimate import FOLDER as ESTIMATES

from .keep import CHECKED, CHECKPOINT, MANIFEST, NEEDS, SHARDS, VERDICT, Kept, Rules, artifacts, pins
from .trash import TRASH, Item

# What lies in a store beside artifacts. `data` (what was accepted, released and removed, and what the split remembers)
# and `places` are kept whole: they are small, and nothing makes them again. cache.db loses rows, see `rows.py`.
WHOLE = ("data", "places")
SWEPT = ("pictures", "working", "thumbnails", SHARD_CACHE, TEXT_CACHE, "pins", "bases", ESTIMATES, ".work", ".locks")
REST = (TRASH, "cache.db", "cache.db-wal", "cache.db-shm")
FLOW_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
REPORT = re.compile(r".+-([0-9a-f]{12})\.html")
HIDDEN = "."  # how the names of what is being written begin


@dataclass(frozen=True)
class Pictures:
    """What the kept tables name: ids of pictures, and keys of their working copies."""

    ids: frozenset[str]
    working: frozenset[str]


def unknown(store: Store) -> list[str]:
    """Folders and files of the store that nothing here knows; they are left alone."""
    known = {*NEEDS, *WHOLE, *SWEPT, *REST}
    return sorted(path.name for path in store.root.glob("*") if path.name not in known)


def superfluous(home: Path, store: Store, kept: Kept, pinned: Callable[[str], bool], rules: Rules) -> list[Item]:
    """Everything that may go: what is not kept, and old enough."""

    def old(path: Path, seconds: float = rules.young) -> bool:
        try:
            return rules.now - path.lstat().st_mtime >= seconds
        except FileNotFoundError:
            return False

    named = pictures(store, kept)
    gone = [one for name, one in artifacts(store).items() if name not in kept.artifacts]  # the young are kept
    found = [Item(one.name[0], one.path) for one in gone]
    found += [Item("work in progress", path) for path in _work(store, kept) if old(path)]
    for kind, wanted in (
        ("pictures", named.ids),
        ("working", named.working),
        ("thumbnails", named.ids | named.working),
    ):
        found += [Item(kind, path) for path in _loose(store.root / kind, wanted) if old(path)]
    found += [Item(SHARD_CACHE, path) for path in _shard_cache(store, kept) if old(path)]
    texts = (store.root / TEXT_CACHE).glob("*")
    found += [Item(TEXT_CACHE, path) for path in texts if old(path, max(rules.young, rules.unfinished))]
    notes = [
        *(store.root / "pins" / name for name in pins(store) if not pinned(name)),
        *_bases(store, kept),
        *_estimates(store, kept),
        *(store.root / ".locks" / "-".join(one.name) for one in gone),
    ]
    found += [Item("notes", path) for path in notes if old(path)]
    found += [Item("reports", path) for path in _reports(home, kept) if old(path)]
    found += [Item(FOLDER, path) for path in drawn(home) if old(path, max(rules.young, rules.generated))]
    return found


def pictures(store: Store, kept: Kept) -> Pictures:
    """What the kept manifests and reports name."""
    ids: set[str] = set()
    working: set[str] = set()
    for kind, name, column, into in (
        (MANIFEST, "manifest.parquet", "id", ids),
        (CHECKED, "checked.parquet", "working", working),
        (CHECKED, "quarantine.parquet", "working", working),
        (CHECKED, "checked.parquet", "id", ids),
        (CHECKED, "quarantine.parquet", "id", ids),
    ):
        for digest in kept.digests(kind):
            into.update(_column(store.root / kind / digest / name, column))
    return Pictures(frozenset(ids), frozenset(working))


def _column(path: Path, column: str) -> Iterable[str]:
    import pyarrow.parquet as pq

    if not path.is_file():
        return ()
    if column not in pq.read_schema(path).names:
        return ()
    values = pq.read_table(path, columns=[column]).column(column).to_pylist()
    return (value for value in values if isinstance(value, str))


def _loose(folder: Path, wanted: Collection[str]) -> Iterator[Path]:
    """Files ``folder/ab/ab...`` whose names are not wanted, and what is left of files that were being written."""
    for part in sorted(folder.glob("*")):
        yield from (path for path in part.iterdir() if path.name not in wanted)


def _work(store: Store, kept: Kept) -> Iterator[Path]:
    """What nobody goes on with: all but trainings that have a checkpoint."""
    keep = {f"{CHECKPOINT}-{digest}" for digest in kept.trainings}
    yield from (path for path in sorted((store.root / ".work").glob("*")) if path.name not in keep)


def _shard_cache(store: Store, kept: Kept) -> Iterator[Path]:
    """Files that no kept shards share: by their inode, or where the disk has no hard links by their bytes."""
    entries = sorted((store.root / SHARD_CACHE).glob("*"))
    if not entries:
        return
    shared = {
        (facts.st_dev, facts.st_ino)
        for digest in kept.digests(SHARDS)
        for path in (store.root / SHARDS / digest / "shards").glob("*.safetensors")
        for facts in [path.stat()]
    }
    sizes = {size for _, size in _sizes(store, kept)}
    for path in entries:
        facts = path.stat()
        linked = (facts.st_dev, facts.st_ino) in shared
        copied = facts.st_nlink == 1 and facts.st_size in sizes and _is_copy(path, store, kept)
        if not linked and not copied:
            yield path


def _sizes(store: Store, kept: Kept) -> Iterator[tuple[str, int]]:
    """(sha256, size) of every file of tensors in kept shards, as their markers say."""
    there = artifacts(store, (SHARDS,))
    for digest in kept.digests(SHARDS):
        if one := there.get((SHARDS, digest)):
            for name, entry in one.marker.get("files", {}).items():
                if name.endswith(".safetensors"):
                    yield entry["sha256"], entry["bytes"]


def _is_copy(path: Path, store: Store, kept: Kept) -> bool:
    from darkroom.store import file_digest

    return file_digest(path) in {sha256 for sha256, _ in _sizes(store, kept)}


def _bases(store: Store, kept: Kept) -> Iterator[Path]:
    """Which champion a training begins with, of manifests that are gone."""
    manifests = kept.digests(MANIFEST)
    for path in sorted((store.root / "bases").glob("*.json")):
        if json.loads(path.read_text("utf-8")).get("manifest") not in manifests:
            yield path


def _estimates(store: Store, kept: Kept) -> Iterator[Path]:
    checkpoints = kept.digests(CHECKPOINT) | kept.trainings
    yield from (path for path in sorted((store.root / ESTIMATES).glob("*.json")) if path.stem not in checkpoints)


def drawn(home: Path) -> list[Path]:
    """The folders of pictures that runs of the `generate` flow left; of what people put beside them none."""
    return [path for path in sorted((home / FOLDER).glob("*")) if FLOW_RUN.fullmatch(path.name) and path.is_dir()]


def _reports(home: Path, kept: Kept) -> Iterator[Path]:
    """Pages of runs whose verdict is gone. MLflow has a copy of each that was registered."""
    verdicts = {digest[:12] for digest in kept.digests(VERDICT)}
    for path in sorted((home / "reports").glob("*.html")):
        match = REPORT.fullmatch(path.name)
        if match and match[1] not in verdicts:
            yield path
