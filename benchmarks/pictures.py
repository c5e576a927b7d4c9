"""What the pass over a picture costs, next to the decoding alone, to cleanvision, and by one and two processes.

    .venv/bin/python benchmarks/pictures.py [--photos FOLDER] [--no-cleanvision]

The pictures are JPEGs of 1024 x 768, quality 90, 4:2:0, with working copies of 256. Without ``--photos`` they are
made: overlapping discs whose radii follow a power law, which have the edges and the spectrum of photos (Lee, Mumford
and Huang, "Occlusion models for natural images", 2001), under a sensor's grain. Real photos are cut and resized to it.

- limit: libjpeg-turbo's decode alone, scaled by DCT to 256 x 192, from memory, not strict;
- pass: ``picture.learn`` and ``judged``, in the batches and with the environment of the processes that measure:
  reading, strict decode, every measure of the manifest, and the working copy written;
- cleanvision: ``Imagelab.find_issues()``, all its checks, one process, installed apart for this;
- processes: ``measuring.measure_all``, wall seconds with one and with two, their start included.

Rates are pictures per CPU second, medians of the rounds, ratios medians of each round's ratio, because a busy machine
slows down neighbouring seconds alike. The checks of cleanvision and where ours are: odd size and odd aspect (``width``
and ``height``), low information (``entropy``), dark and light (``brightness_p99``, ``_p5``), greyscale, blurry
(``sharpness`` and flags), exact duplicates (``pixels``) and near ones (``phash``, ``dhash``, ``crops``).
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from darkroom.collect.manifest import picture_path
from darkroom.quality.measuring import measure_all
from darkroom.quality.picture import BATCH, Rules, judged, learn
from darkroom.quality.pool import ENVIRONMENT
from darkroom.store import Store

WIDTH, HEIGHT, WORKING = 1024, 768, 256
RULES = Rules(min_side=8, max_pixels=100_000_000, working_side=WORKING, max_aspect=8)
CLEANVISION = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1])
seconds = []
for _ in range(int(sys.argv[2])):
    start = time.process_time()
    Imagelab(data_path=sys.argv[1]).find_issues(n_jobs=1, verbose=False)
    seconds.append(time.process_time() - start)
print(json.dumps(seconds))
"""


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of real photos instead of made ones")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pool", type=int, default=2000, help="pictures for the processes; 0: leave it out")
    parser.add_argument("--no-cleanvision", action="store_true", help="leave it out: it installs 200 MB")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        folder = Path(name)
        files = write(folder / "pictures", options.photos, options.pictures)
        contents = [file.read_bytes() for file in files]
        size = sum(map(len, contents)) / len(contents) / 1000
        print(f"{len(files)} pictures of {size:.0f} kB, load {os.getloadavg()[0]:.1f} at the start\n")
        print("| what | pictures per CPU second | ratio |\n|---|---:|---:|")
        limits, passes = rounds(folder, files, contents, options.rounds)
        ratio = statistics.median(one / two for one, two in zip(limits, passes, strict=True))
        print(f"| limit: DCT-scaled decode alone | {rate(files, limits):.0f} | 1 |")
        print(f"| the pass | {rate(files, passes):.0f} | {ratio:.2f} of the limit |", flush=True)
        if not options.no_cleanvision:
            others = cleanvision(folder, min(options.rounds, 3))
            times = statistics.median(others) / statistics.median(passes)
            print(f"| cleanvision | {rate(files, others):.1f} | the pass is {times:.1f} times as fast |", flush=True)
        if options.pool:
            seconds = {count: processes(folder, files, options.pool, count) for count in (1, 2, 1, 2, 1, 2)}
            for count, second in seconds.items():
                of_one = f"{seconds[1] / second:.2f} of one" if count > 1 else "1"
                print(
                    f"| {count} process{'es' * (count > 1)} | {options.pool / second:.0f} per wall second | {of_one} |"
                )


def write(folder: Path, photos: Path | None, count: int) -> list[Path]:
    """The JPEGs to measure."""
    folder.mkdir()
    sources = sorted(path for path in photos.rglob("*") if path.is_file()) if photos else []
    pictures = (photo(path) for path in sources) if photos else (discs(seed) for seed in range(count))
    files: list[Path] = []
    for picture in pictures:
        if picture is not None and len(files) < count:
            files.append(folder / f"{len(files):03d}.jpg")
            files[-1].write_bytes(simplejpeg.encode_jpeg(picture, quality=90, colorsubsampling="420"))
    return files


def discs(seed: int) -> np.ndarray:
    """A picture of overlapping discs: uint8 [HEIGHT, WIDTH, 3]."""
    random = np.random.default_rng(seed)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    radii = 3 / np.sqrt(1 - random.uniform(0, 1 - (3 / 400) ** 2, 20_000))  # density falls with the cube of the radius
    colours = np.clip(random.normal(120, 60, (len(radii), 1)) + random.normal(0, 25, (len(radii), 3)), 0, 255)
    places = random.integers(-50, (WIDTH + 50, HEIGHT + 50), (len(radii), 2))
    for place, radius, colour in zip(places.tolist(), radii.tolist(), colours.tolist(), strict=True):
        cv2.circle(picture, place, int(radius), colour, -1, cv2.LINE_AA)
    soft = cv2.GaussianBlur(picture, (0, 0), 0.7).astype(np.float32)
    noisy: np.ndarray = np.clip(soft + random.normal(0, 2, soft.shape[:2])[..., None], 0, 255)
    return noisy.astype(np.uint8)


def photo(path: Path) -> np.ndarray | None:
    """A real photo cut to 4:3 and resized, or None for what is not a picture: uint8 [HEIGHT, WIDTH, 3]."""
    picture = cv2.imread(str(path))
    if picture is None:
        return None
    height, width = picture.shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (max(WIDTH, round(width * scale)), max(HEIGHT, round(height * scale)))
    resized = cv2.resize(picture, size, interpolation=method)[:HEIGHT, :WIDTH]
    return np.ascontiguousarray(resized[..., ::-1])


def rounds(folder: Path, files: list[Path], contents: list[bytes], count: int) -> tuple[list[float], list[float]]:
    """CPU seconds over all pictures, one each round: (the limit, the pass)."""

    def limit() -> None:
        for content in contents:
            simplejpeg.decode_jpeg(content, min_width=WORKING, min_height=1, strict=False)

    def whole() -> None:
        for start in range(0, len(files), BATCH):
            for values in learn([(str(file), next(copies)) for file in files[start : start + BATCH]], RULES):
                assert isinstance(values, dict)
                assert "reason" not in judged(values, RULES)

    copies = (str(folder / "copies" / f"{number % 256:02x}" / str(number)) for number in range(10**9))
    limit()
    whole()
    pairs = [(cpu(limit), cpu(whole)) for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def cleanvision(folder: Path, count: int) -> list[float]:
    """CPU seconds of cleanvision over the same pictures, in an environment of its own."""
    environment = folder / "cleanvision"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin/python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "cleanvision"], check=True)
    done = subprocess.run(
        [python, "-c", CLEANVISION, folder / "pictures", str(count)], check=True, capture_output=True, text=True
    )
    return [float(second) for second in done.stdout.strip().splitlines()[-1].strip("[]").split(",")]


def processes(folder: Path, files: list[Path], count: int, workers: int) -> float:
    """Wall seconds for ``count`` pictures that the store has never seen, the files taken again and again."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        store = Store(Path(name))
        ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
        for number, one in enumerate(ids):
            path = picture_path(store, one)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(files[number % len(files)])
        start = time.monotonic()
        columns = measure_all(ids, RULES, store, workers)
        seconds = time.monotonic() - start
    assert not any(columns["reason"])
    return seconds


def cpu(work: Callable[[], None]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def rate(files: list[Path], seconds: list[float]) -> float:
    """Pictures a second, in the median."""
    return len(files) / statistics.median(seconds)


if __name__ == "__main__":
    if not ENVIRONMENT.items() <= os.environ.items():  # libraries read it while they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    main()
