"""What a few new pictures cost among many that were accepted, from collection to shards, and which files are opened.

    .venv/bin/python benchmarks/incremental.py [--pictures 10000] [--new 100] [--folder FOLDER]

Pictures are JPEGs of 256 x 256 pixels, smooth noise, with captions in metadata.jsonl. Each line of the first table is a
process of its own that collects, checks and preprocesses as a run does, without Prefect; its CPU seconds are its own,
its children's among them, in both modes of the processor. "Imports" are Python, all libraries and a first call of the
autoencoder, made in every one of them before anything else, so that no stage pays for what another did not need. In
this order:

- "all": everything, from an empty store;
- "nothing new": the same again. The store answers, so nothing is judged;
- "judged anew": the same pictures, but check and preprocess are made to run (``--fresh``). No picture is new, so this
  is what a check and its reports cost however few pictures come, Great Expectations over the whole table included.
  With the imports it is the fixed start-up;
- "new": with the new pictures.

The share is (new - judged anew) / all. The one beyond "nothing new" is printed too: it counts as work on new pictures
what is done for the whole table whenever there is any. "Alone" is the new pictures by themselves in an empty store:
what is left of the fixed start-up when the table is small.

The second table counts the files of pictures that any process opened while the new ones were put there and taken in,
by the kernel's own record (inotify): those of the source, the store's copies of their bytes, and the working copies.
The reviewer's page shows thumbnails of some pictures; where it has not shown one before, it opens the working copy.
"""

import argparse
import ctypes
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

IN_OPEN, IN_Q_OVERFLOW, IN_ISDIR, IN_NONBLOCK = 0x20, 0x4000, 0x40000000, 0o4000  # sys/inotify.h
STAGES = ("imports", "collect", "check", "preprocess")
RECIPE = """
version = 1
name = "noise"
[collect]
source = "folder"
path = "{folder}"
licence = "CC0-1.0"
[preprocess]
size = 64
[model]
vae = "builtin:digits-vae"
text_encoder = "builtin:digits-text-encoder"
[train]
steps = 1
threads = 1
"""
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "brown", "grey", "orange", "purple")
THINGS = ("hill", "river", "cloud", "forest", "garden", "street", "harbour", "meadow", "tower", "bridge")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-", dir=options.folder) as name:
        measure(Path(name), options.pictures, options.new)


def measure(folder: Path, count: int, new: int) -> None:
    """All, nothing, all judged anew, a few more; then those few alone."""
    every, few = Source(folder / "source"), Source(folder / "few")
    every.add(range(count))
    few.add(range(count, count + new))
    runs = {"all": run(every, folder / "store"), "nothing new": run(every, folder / "store")}
    runs["judged anew"] = run(every, folder / "store", fresh=True)
    with Watch(every.folder, folder / "store" / "pictures", folder / "store" / "working") as watch:
        every.add(range(count, count + new))
        runs["new"] = run(every, folder / "store")
        opened = watch.opened()
    runs["alone"] = run(few, folder / "other")
    print(f"{count:,} pictures, {new:,} new ones; CPU seconds\n")
    print("| what | " + " | ".join(STAGES) + " | in all | accepted |")
    print("|---|" + "---:|" * (len(STAGES) + 2))
    for name, found in runs.items():
        seconds = " | ".join(f"{found['cpu'][stage]:.2f}" for stage in STAGES)
        print(f"| {name} | {seconds} | {total(found):.2f} | {found['accepted']:,} |")
    all_of_them = total(runs["all"])
    for name in ("judged anew", "nothing new"):
        more = total(runs["new"]) - total(runs[name])
        print(f"\nBeyond {name!r}: {more:.2f} s, {more / all_of_them:.1%} of all.")
    print("\n| opened while the new ones were taken in | accepted before | new |\n|---|---:|---:|")
    for place, (old, fresh) in opened.items():
        print(f"| {place} | {old:,} | {fresh:,} |")


def total(found: dict[str, Any]) -> float:
    return float(sum(found["cpu"].values()))


class Source:
    """A folder of pictures with their captions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, numbers: range) -> None:
        """Put pictures there; those that are there are not touched."""
        from PIL import Image

        with (self.folder / "metadata.jsonl").open("a") as lines:
            for number in numbers:
                random = np.random.default_rng(number)
                coarse = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)
                picture.save(self.folder / f"{number:06d}.jpg", quality=90)
                lines.write(json.dumps({"file_name": f"{number:06d}.jpg", "text": caption(number)}) + "\n")


def caption(number: int) -> str:
    first, second, third = (number // 10**place % 10 for place in range(3))
    return f"a {COLOURS[first]} {THINGS[second]} beside a {COLOURS[third]} {THINGS[number // 1000 % 10]} {number}"


def run(source: Source, store: Path, *, fresh: bool = False) -> dict[str, Any]:
    """One run in a process of its own: the CPU seconds of each stage, and how many pictures were accepted."""
    recipe = store.with_suffix(".toml")
    recipe.write_text(RECIPE.format(folder=source.folder))
    before = spent(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, "run", str(recipe), str(store), "fresh" if fresh else ""]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # What is before the first line of code and after the last counts as import.
    found["cpu"]["imports"] += spent(resource.RUSAGE_CHILDREN) - before - total(found)
    return found


def stages(recipe: Path, root: Path, *, fresh: bool) -> None:
    """What :func:`run` runs."""
    import great_expectations
    import torch

    from darkroom.collect.manifest import collect
    from darkroom.diffusion.pipeline import load_vae
    from darkroom.preprocess.latents import encode
    from darkroom.preprocess.shards import preprocess
    from darkroom.quality.check import gate, summary
    from darkroom.recipe import load
    from darkroom.store import Store
    from darkroom.training.parts import latents_of

    assert great_expectations.__version__
    plan, store = load(str(recipe)), Store(root)
    latents = latents_of(plan)
    assert latents.vae is not None
    encode(load_vae(latents.vae.path), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    times = [spent()]
    manifest = collect(plan.collect, store)
    times.append(spent())
    checked = gate(manifest, plan, store, workers=1, fresh=fresh)
    times.append(spent())
    preprocess(checked, plan.preprocess, latents, plan.train.threads, store, fresh=fresh)
    times.append(spent())
    cpu = dict(zip(STAGES[1:], np.diff(times).tolist(), strict=True))
    print(json.dumps({"cpu": {"imports": times[0], **cpu}, "accepted": summary(checked)["accepted"]}))


def spent(*whose: int) -> float:
    """CPU seconds so far, by default of this process and of its children that have ended."""
    usages = [resource.getrusage(one) for one in whose or (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Watch:
    """The kernel's record of every file that is opened in some folders and those inside; a context manager.

    A file that is there at the start is one of the accepted pictures'. Raises ``OSError`` when the kernel cannot watch,
    and when it lost records.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders

    def __enter__(self) -> "Watch":
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._valid(self._libc.inotify_init1(IN_NONBLOCK))
        self._watched: dict[int, tuple[str, Path]] = {}
        self._old: set[Path] = set()
        for root in self._folders:
            for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
                number = self._valid(self._libc.inotify_add_watch(self._handle, os.fsencode(folder), IN_OPEN))
                self._watched[number] = (root.name, folder)
                self._old.update(path for path in folder.iterdir() if path.is_file())
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def opened(self) -> dict[str, tuple[int, int]]:
        """For each folder, (files that were there, files that were not) that were opened so far; pictures alone."""
        files: set[tuple[str, Path]] = set()
        while True:
            try:
                record = os.read(self._handle, 1 << 20)
            except BlockingIOError:
                break
            files.update(self._files(record))
        counts = {}
        for root in self._folders:
            its = [path for name, path in files if name == root.name and path.suffix != ".jsonl"]
            old = sum(path in self._old for path in its)
            counts[root.name] = (old, len(its) - old)
        return counts

    def _files(self, record: bytes) -> "list[tuple[str, Path]]":
        found, place = [], 0
        while place < len(record):
            number, mask, _, length = struct.unpack_from("iIII", record, place)
            name = record[place + 16 : place + 16 + length].rstrip(b"\0")
            place += 16 + length
            if mask & IN_Q_OVERFLOW:
                raise OSError("the kernel lost records: raise fs.inotify.max_queued_events")
            if name and not mask & IN_ISDIR:
                root, folder = self._watched[number]
                found.append((root, folder / os.fsdecode(name)))
        return found

    def _valid(self, result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), f"inotify: {os.strerror(ctypes.get_errno())}")
        return result


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", recipe, root, fresh]:
            stages(Path(recipe), Path(root), fresh=bool(fresh))
        case _:
            main()
