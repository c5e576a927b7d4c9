"""What an evaluation costs: of 2,000 digits at the default settings, of other counts, and done again.

    .venv/bin/python benchmarks/evaluation.py [--home HOME] [--counts 500 1000 2000 3000]

``--home`` is that of a finished `darkroom run digits`; without it one is made, which takes minutes. Each count is drawn
and measured in a store of its own that has the shards and the checkpoint alone; the reference of real pictures, which
does not depend on the count, is made in it first and timed apart. Again: the last count once more, which the store
answers, and with ``fresh``, where all is measured anew of the pictures and features that the store has. Imports are
done before the first, and timed apart, too.

Two lines follow: how far the seconds are from a straight line over the counts, and whether features that two processes
made of half of the pictures each give the numbers that one process gives, to the last printed digit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print the table and the two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="of a finished `darkroom run digits`")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000, 2000, 3000])
    options = parser.parse_args()
    began = time.perf_counter()
    from darkroom.artifacts import Checkpoint, Shards
    from darkroom.devices import prepare
    from darkroom.evaluation.evaluate import evaluate, reference
    from darkroom.evaluation.features import load as extractor
    from darkroom.recipe import Evaluate, load
    from darkroom.store import Store

    plan = load(str(ROOT / "recipes/digits.toml"))
    prepare(plan.train.threads, "cpu")
    extractor(plan.evaluate.features, "cpu")  # with all that it imports
    imports = time.perf_counter() - began
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        home = options.home or Path(folder) / "home"
        outcome = run(home)
        digests = outcome["digests"]
        shards = Shards(digests["shards"], home / "store/shards" / digests["shards"])
        checkpoint = Checkpoint(digests["checkpoint"], home / "store/checkpoint" / digests["checkpoint"])
        seconds: dict[int, float] = {}
        print("| what | seconds |\n|---|---:|", flush=True)
        print(f"| imports | {imports:.1f} |", flush=True)
        for count in options.counts:
            store = Store(Path(folder) / f"store-{count}")
            wanted = plan.evaluate.model_copy(update={"count": count})

            def once(fresh: bool = False, wanted: Evaluate = wanted, store: Store = store) -> float:
                start = time.perf_counter()
                evaluate(checkpoint, shards, wanted, store, threads=plan.train.threads, fresh=fresh)
                return time.perf_counter() - start

            start = time.perf_counter()
            reference(shards, wanted, store, plan.train.threads, "cpu")
            if count == options.counts[0]:
                print(f"| the reference, once for a data set | {time.perf_counter() - start:.1f} |", flush=True)
            seconds[count] = once()
            print(f"| {count:,} pictures drawn and measured | {seconds[count]:.1f} |", flush=True)
        print(f"| {count:,} again | {once():.2f} |")
        print(f"| {count:,} measured anew, nothing drawn | {once(fresh=True):.1f} |", flush=True)
        print(f"\n{line(seconds)}\n{processes(Path(folder) / f'store-{options.counts[0]}', Path(folder))}")


def run(home: Path) -> dict[str, dict[str, str]]:
    """The outcome of a run of the built-in recipe in a home folder, which a finished one answers at once."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(ROOT / "recipes/digits.toml"), "--json"],
        env={**os.environ, "DARKROOM_HOME": str(home)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    outcome: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def line(seconds: dict[int, float]) -> str:
    """How far the seconds lie from the straight line through them."""
    counts, found = np.array(list(seconds)), np.array(list(seconds.values()))
    slope, start = np.polyfit(counts, found, 1)
    off = np.abs(found - (start + slope * counts)).max()
    return f"A straight line: {start:.1f} s and {1000 * slope:.1f} ms a picture, off by {off:.1f} s at most."


def half(folder: str) -> np.ndarray:
    """The features that a process finds of its half of the pictures."""
    from darkroom.devices import prepare
    from darkroom.evaluation.features import folder_features, load

    prepare(1, "cpu")
    return folder_features(Path(folder), load("builtin:clip-digits", "cpu", "pooled"), batch=50)


def processes(store: Path, work: Path) -> str:
    """Whether one and two processes find the same numbers of the drawn pictures."""
    from safetensors.numpy import load_file

    from darkroom.evaluation.frechet import frechet_of_sets
    from darkroom.evaluation.sets import compared

    pictures = sorted(next((store / "samples").iterdir()).glob("pictures/*.png"))
    pictures = pictures[: len(pictures) // 100 * 100]
    folders = [work / "one", work / "first", work / "second"]
    middle = len(pictures) // 2
    for folder, some in zip(folders, (pictures, pictures[:middle], pictures[middle:]), strict=True):
        folder.mkdir()
        for path in some:
            (folder / path.name).symlink_to(path)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        whole, *parts = pool.map(half, map(str, folders))
    real = load_file(next((store / "reference").iterdir()) / "features.safetensors")["validation"]
    names = ["a"] * len(whole)
    numbers = [
        {
            name: f"{value:.5g}"
            for name, value in {
                **compared(features, real, names, ["a"] * len(real), "fd_clip_digits"),
                **{f"distance {place}": value for place, value in enumerate(frechet_of_sets(features, real))},
            }.items()
        }
        for features in (whole, np.concatenate(parts))
    ]
    off = [name for name, value in numbers[0].items() if numbers[1][name] != value]
    same = f"differ in {', '.join(off)}" if off else f"agree in all {len(numbers[0])} printed numbers"
    return f"One process and two {same}."


if __name__ == "__main__":
    main()
