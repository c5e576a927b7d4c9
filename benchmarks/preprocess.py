"""What preprocessing costs, and how much of it a few new pictures cost. CPU seconds, so that neighbours count less.

    .venv/bin/python benchmarks/preprocess.py --pictures 10000 --new 100

Pictures are smooth noise of mixed shapes, 320 pixels on the longer side, as working copies; latents are those of the
built-in autoencoder. "Without a new picture" is a run that finds all shards cached but no artifact: the fixed part.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

from darkroom.artifacts import CheckedManifest
from darkroom.diffusion.pipeline import load_vae
from darkroom.export import export
from darkroom.preprocess.latents import Latents, encode, group
from darkroom.preprocess.pictures import fitted
from darkroom.preprocess.shards import preprocess
from darkroom.quality.picture import working_path
from darkroom.recipe import Preprocess
from darkroom.store import Store, digest_of
from darkroom.weights.locate import locate

SHAPES = [(240, 320), (320, 240), (320, 320), (180, 320), (320, 200)]
VAE = "builtin:digits-vae"


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--new", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--buckets", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        store = Store(Path(folder))
        increments(store, options)
        resizing(store)
    encoding()


def increments(store: Store, options: argparse.Namespace) -> None:
    """All pictures, then a few more, then nothing new."""
    plan = Preprocess(size=options.size, buckets=options.buckets, bucket_step=8)
    rows = [picture(store, number) for number in range(options.pictures + options.new)]
    first, every = checked(store, rows[: options.pictures]), checked(store, rows)
    weights = locate(VAE)
    encode(load_vae(weights.path), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))  # imports, once, apart

    def run(which: CheckedManifest, fresh: bool = False) -> float:
        return cpu(lambda: preprocess(which, plan, Latents(weights), 1, store, fresh=fresh))

    whole, more, again = run(first), run(every), run(every, fresh=True)
    written = cpu(lambda: export(every, store, "webdataset", store.root / "out", pictures="working"))
    print("| what | CPU s | share |\n|---|---:|---:|")
    print(f"| {options.pictures:,} pictures to shards of {options.size} px | {whole:.2f} | 100 % |")
    print(f"| {options.new:,} more | {more:.2f} | {more / whole:.1%} |")
    print(f"| of which without a new picture | {again:.2f} | {again / whole:.1%} |")
    print(f"| export of all as WebDataset | {written:.2f} | {written / whole:.1%} |\n")


def resizing(store: Store) -> None:
    """Ways to bring a working copy of 1024 x 768 to 512 squares; PSNR is against Lanczos."""
    path = store.root / "large.png"
    Image.fromarray(smooth(np.random.default_rng(0), 768, 1024)).save(path, compress_level=1)
    rgb = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert rgb is not None
    picture = Image.fromarray(rgb)
    lanczos = np.asarray(ImageOps.fit(picture, (512, 512), method=Image.Resampling.LANCZOS))
    cv2.setNumThreads(1)
    print("| 1024x768 to 512 | CPU ms | PSNR dB |\n|---|---:|---:|")
    for name, way in {
        "darkroom, decode and resize": lambda: fitted(path, (512, 512)).transpose(1, 2, 0),
        "Pillow, decode and Lanczos": lambda: np.asarray(
            ImageOps.fit(Image.open(path).convert("RGB"), (512, 512), method=Image.Resampling.LANCZOS)
        ),
        "OpenCV area alone": lambda: cv2.resize(rgb[:, 128:896], (512, 512), interpolation=cv2.INTER_AREA),
        "Pillow Lanczos alone": lambda: np.asarray(ImageOps.fit(picture, (512, 512), method=Image.Resampling.LANCZOS)),
    }.items():
        error = ((way().astype(float) - lanczos) ** 2).mean()
        quality = f"{10 * np.log10(255**2 / error):.1f}" if error else "the same"
        print(f"| {name} | {min(cpu(way) for _ in range(7)) * 1000:.1f} | {quality} |")
    print()


def encoding() -> None:
    """Calls of the autoencoder: one picture, darkroom's group, 64; and whether the bits depend on the neighbours."""
    torch.set_num_threads(1)
    vae = load_vae(locate(VAE).path)
    print("| side | pictures a call | wall ms a picture | same bits as in a call of 64 |\n|---:|---:|---:|---|")
    for side in (16, 64, 128):
        pixels = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, generator=torch.manual_seed(0))
        whole = called(vae, pixels, 64)
        for size in sorted({1, group(side, side), 64}):
            seconds = min(timed(partial(called, vae, pixels, size)) for _ in range(3))
            same = torch.equal(called(vae, pixels, size), whole)
            mark = " (darkroom)" if size == group(side, side) else ""
            print(f"| {side} | {size}{mark} | {seconds / 64 * 1000:.2f} | {'yes' if same else 'no'} |")


def called(vae: Any, pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Latents, so many pictures a call."""
    with torch.inference_mode():
        return torch.cat([vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in pixels.split(size)])


def picture(store: Store, number: int) -> dict[str, Any]:
    """A row with its working copy."""
    height, width = SHAPES[number % len(SHAPES)]
    identity = hashlib.sha256(str(number).encode()).hexdigest()
    path = working_path(store.root, identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth(np.random.default_rng(number), height, width)).save(path, "PNG", compress_level=1)
    return {
        **dict.fromkeys(("row_id", "id", "working"), identity),
        **dict.fromkeys(("origin", "label")),
        "path": f"{number}.png",
        "source": "noise",
        "licence": "CC0-1.0",
        "caption": f"noise {number}",
        "bytes": path.stat().st_size,
        "width": width,
        "height": height,
        "converted": [],
        "split": "validation" if number % 10 == 0 else "train",
    }


def smooth(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise with the soft forms of a photo."""
    small = random.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return (large + random.integers(-6, 7, large.shape)).clip(0, 255).astype(np.uint8)


def checked(store: Store, rows: list[dict[str, Any]]) -> CheckedManifest:
    """Rows -> a checked manifest."""
    table = pd.DataFrame(rows)
    ids = digest_of(list(table["id"]))
    return store.get_or_build(CheckedManifest, ids, lambda work: table.to_parquet(work / "checked.parquet"), inputs={})


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def timed(work: Callable[[], object]) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
