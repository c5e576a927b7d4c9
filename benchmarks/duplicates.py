"""Near duplicates: what finding them costs, whether it is exact, and which copies of real pictures are found.

    .venv/bin/python benchmarks/duplicates.py
    DARKROOM_REAL_DATA=FOLDER .venv/bin/python benchmarks/duplicates.py

FOLDER holds the archives captioned_photos, clothing_250, grocery_243, cc0_photos and emoji_3d_128 (.tar.gz). They are
unpacked into a temporary folder. Each cost is measured in a process of its own: CPU seconds without imports and without
making the hashes, and the whole process's peak memory.
"""

import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

if TYPE_CHECKING:
    import pandas as pd

SETS = ("captioned_photos", "clothing_250", "grocery_243", "cc0_photos", "emoji_3d_128")
DISTANCE = 6


def main() -> None:
    """Print all tables, in Markdown."""
    if len(sys.argv) > 1:
        print(json.dumps(COSTS[sys.argv[1]]()))
        return
    print("| what | CPU s | of brute force | peak MiB | pairs |\n|---|---:|---:|---:|---:|")
    for name in COSTS:
        command = [sys.executable, __file__, name]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
        answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found = json.loads(answer.stdout)
        ratio = f"{found['seconds'] / found['brute']:.3f}" if "brute" in found else ""
        print(f"| {name} | {found['seconds']:.2f} | {ratio} | {found['peak']:.0f} | {found['pairs']:,} |", flush=True)
    if folder := os.environ.get("DARKROOM_REAL_DATA"):
        with tempfile.TemporaryDirectory(prefix="darkroom-") as place:
            real(Path(folder), Path(place))


def hashes(count: int, words: int = 1, seed: int = 0) -> np.ndarray:
    """Random hashes, of which every twentieth differs from another by at most 8 bits a word."""
    generator = np.random.default_rng(seed)
    found = generator.integers(0, 2**64, (count, words), dtype=np.uint64)
    copies = count // 20
    flips = np.zeros((copies, words), np.uint64)
    for _ in range(8):
        flips |= np.uint64(1) << generator.integers(0, 64, (copies, words), dtype=np.uint64)
    found[:copies] = found[-copies:] ^ flips
    return found


def natural(count: int) -> np.ndarray:
    """Hashes as of a catalogue on white: bits are unevenly set, and most share more than a third of them."""
    generator = np.random.default_rng(0)
    bits = generator.random((count, 64)) < generator.beta(1.5, 1.5, 64)
    found = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    found[: count * 6 // 10] &= np.uint64(0x00000003FFFFFFFF)
    return found


def timed(work: Callable[[], int]) -> dict[str, float]:
    """CPU seconds, peak memory of this process in MiB, and how many pairs ``work`` says there are."""
    start = time.process_time()
    pairs = work()
    seconds = time.process_time() - start
    return {"seconds": seconds, "pairs": pairs, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def one_hash(count: int) -> dict[str, float]:
    """near_pairs of one hash."""
    from darkroom.quality.pairs import near_pairs

    some = hashes(count)[:, 0]
    found = timed(lambda: len(near_pairs(some, DISTANCE)))
    if count <= 100_000:
        start = time.process_time()
        assert found["pairs"] == sum(
            int((np.bitwise_count(some[row] ^ some[row + 1 :]) <= DISTANCE).sum()) for row in range(count)
        ), "not the pairs of brute force"
        found["brute"] = time.process_time() - start
    return found


def uneven(count: int) -> dict[str, float]:
    """near_pairs of hashes that share most bits."""
    from darkroom.quality.pairs import near_pairs

    some = natural(count)
    return timed(lambda: len(near_pairs(some, 3)))


def turned(count: int) -> dict[str, float]:
    """The candidates of duplicates.find: pHash of 64 bits and dHash of 128 over the eight flips and turns."""
    from darkroom.quality.hashes import dhash_symmetries, symmetries
    from darkroom.quality.likeness import Looks, near_candidates

    p, d = hashes(count)[:, 0], hashes(count, words=2, seed=1)
    generator = np.random.default_rng(2)
    rows, turns = np.arange(count // 10), generator.integers(0, 8, count // 10)
    p[-len(rows) :] = symmetries(p[rows])[rows, turns]
    d[-len(rows) :] = dhash_symmetries(d[rows])[rows, turns]
    seen = Looks(
        p, d, np.ones(count, bool), np.zeros(0, np.uint64), np.zeros(count + 1, np.int64),
        np.zeros((count, 64, 3), np.uint8), np.full(count, np.nan),
    )  # fmt: skip
    result: list[np.ndarray] = []

    def work() -> int:
        result.extend(near_candidates(seen, np.ones(count, bool), DISTANCE))
        return len(result[0])

    found = timed(work)
    if count <= 20_000:
        start = time.process_time()
        brute: set[tuple[int, int]] = set()
        for row in range(count):
            near = (np.bitwise_count(symmetries(p[row : row + 1])[0][:, None] ^ p[None]) <= DISTANCE).any(axis=0)
            bits = np.bitwise_count(dhash_symmetries(d[row : row + 1])[0][:, None] ^ d[None]).sum(axis=2)
            near |= (bits <= 2 * DISTANCE).any(axis=0)
            brute |= {(row, int(other)) for other in np.flatnonzero(near) if other > row}
        found["brute"] = time.process_time() - start
        assert brute == set(zip(result[0].tolist(), result[1].tolist(), strict=True)), "not the pairs of brute force"
    return found


def batch(accepted: int, new: int) -> dict[str, float]:
    """near_pairs of new hashes with accepted ones."""
    from darkroom.quality.pairs import near_pairs

    ours, theirs = hashes(new, seed=3)[:, 0], hashes(accepted)[:, 0]
    return timed(lambda: len(near_pairs(ours, DISTANCE, theirs)))


def table(count: int, seed: int = 0) -> "pd.DataFrame":
    """A manifest of ``count`` rows with random hashes and 29 random crops each; every twentieth is a mirrored copy."""
    import pandas as pd

    from darkroom.quality.hashes import dhash_symmetries, symmetries, to_hex

    generator = np.random.default_rng(seed)
    p, d, crops = hashes(count, 1, seed)[:, 0], hashes(count, 2, seed + 1), hashes(count, 29, seed + 2)
    cells = generator.integers(0, 256, (count, 8, 8, 3), np.uint8)
    rows = np.arange(count // 20)
    p[-len(rows) :], d[-len(rows) :] = symmetries(p[rows])[:, 1], dhash_symmetries(d[rows])[:, 1]
    cells[-len(rows) :] = cells[rows][:, :, ::-1]
    names = [f"{number:064x}" for number in generator.permutation(count) + seed * 10_000_000]
    return pd.DataFrame(
        {
            "row_id": names, "id": names, "pixels": names, "path": names,
            "phash": [to_hex(one) for one in p[:, None]], "dhash": [to_hex(one) for one in d],
            "crops": [to_hex(one) for one in crops], "descriptor": [one.tobytes().hex() for one in cells],
            "width": 512, "height": 512, "bytes": 50_000, "format": "JPEG", "caption": "a", "label": "b",
            "entropy": 7.5,
        }
    )  # fmt: skip


def whole(count: int) -> dict[str, float]:
    """duplicates.find over a table, crops included."""
    from darkroom.quality.duplicates import find
    from darkroom.recipe import Check

    rows = table(count)
    return timed(lambda: len(find(rows, np.ones(count, bool), Check()).pairs))


def later(accepted: int, new: int) -> dict[str, float]:
    """duplicates.find over accepted rows, which the history knows, and new ones."""
    import pandas as pd

    from darkroom.quality.duplicates import find
    from darkroom.recipe import Check

    old = table(accepted)
    rows = pd.concat([old, table(new, seed=7)], ignore_index=True)
    history = old.assign(cluster=old["pixels"], side="train")
    return timed(lambda: len(find(rows, np.ones(len(rows), bool), Check(), history).pairs))


COSTS: dict[str, Callable[[], dict[str, float]]] = {
    "20,000, one hash, equal to brute force": lambda: one_hash(20_000),
    "100,000, one hash, equal to brute force": lambda: one_hash(100_000),
    "1,000,000, one hash": lambda: one_hash(1_000_000),
    "100,000, one hash, most of a third of the bits shared, distance 3": lambda: uneven(100_000),
    "20,000, pHash and dHash, eight flips and turns, equal to brute force": lambda: turned(20_000),
    "100,000, pHash and dHash, eight flips and turns": lambda: turned(100_000),
    "100,000 rows, duplicates.find, crops included": lambda: whole(100_000),
    "10,000 accepted rows and 100 new ones, duplicates.find": lambda: later(10_000, 100),
    "100 new with 10,000 accepted, one hash": lambda: batch(10_000, 100),
    "100 new with 1,000,000 accepted, one hash": lambda: batch(1_000_000, 100),
}


def jpeg(picture: Image.Image, quality: int = 85) -> Image.Image:
    """Encode and decode."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def crop(picture: Image.Image, share: float, x: float = 0.5, y: float = 0.5) -> Image.Image:
    """Keep ``share`` of each side, from the place (x, y) of where it may lie."""
    width, height = (max(1, round(side * share)) for side in picture.size)
    left, top = round((picture.width - width) * x), round((picture.height - height) * y)
    return picture.crop((left, top, left + width, top + height))


def band(picture: Image.Image) -> Image.Image:
    """An advertisement's bar near the foot."""
    picture, (width, height) = picture.copy(), picture.size
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, int(height * 0.86), width, int(height * 0.95)), fill="black")
    draw.text((width * 0.05, height * 0.87), "SALE 50 % OFF", fill="white", font_size=max(8, int(height * 0.07)))
    return picture


def mark(picture: Image.Image) -> Image.Image:
    """A watermark."""
    picture, (width, height) = picture.copy(), picture.size
    size = max(8, int(height * 0.06))
    place = (width * 0.5, height * 0.8)
    ImageDraw.Draw(picture).text(place, "(c) photo", fill="white", font_size=size, stroke_width=1, stroke_fill="black")
    return picture


def tinted(picture: Image.Image) -> Image.Image:
    """A warmer white balance."""
    warm = np.asarray(picture) * np.array([1.15, 1.0, 0.8])
    return Image.fromarray(warm.clip(0, 255).astype(np.uint8))


def framed(picture: Image.Image, share: float) -> Image.Image:
    """With a white frame."""
    return ImageOps.expand(picture, round(min(picture.size) * share), "white")


def anywhere(picture: Image.Image, share: float, seed: int) -> Image.Image:
    """A crop from a place drawn by chance."""
    x, y = np.random.default_rng(seed).random(2)
    return crop(picture, share, x, y)


CHANGES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "JPEG quality 30": lambda picture, seed: jpeg(picture, 30),
    "resized to 50 %": lambda picture, seed: picture.resize((picture.width // 2, picture.height // 2)),
    "brightness +30 %": lambda picture, seed: ImageEnhance.Brightness(picture).enhance(1.3),
    "brightness -40 %": lambda picture, seed: ImageEnhance.Brightness(picture).enhance(0.6),
    "contrast +40 %": lambda picture, seed: ImageEnhance.Contrast(picture).enhance(1.4),
    "colour +50 %, brightness +25 %": lambda picture, seed: ImageEnhance.Color(
        ImageEnhance.Brightness(picture).enhance(1.25)
    ).enhance(1.5),
    "white balance": lambda picture, seed: tinted(picture),
    "greyscale": lambda picture, seed: picture.convert("L").convert("RGB"),
    "watermark": lambda picture, seed: mark(picture),
    "bar of text": lambda picture, seed: band(picture),
    "mirrored": lambda picture, seed: ImageOps.mirror(picture),
    "turned by 90°": lambda picture, seed: picture.transpose(Image.Transpose.ROTATE_90),
    "turned by 3°": lambda picture, seed: picture.rotate(3, Image.Resampling.BICUBIC, fillcolor="white"),
    "cropped to 96 %": lambda picture, seed: crop(picture, 0.96),
    "cropped to 90 %": lambda picture, seed: crop(picture, 0.9),
    "cropped to 80 %": lambda picture, seed: crop(picture, 0.8),
    "cropped to 80 % and mirrored": lambda picture, seed: ImageOps.mirror(crop(picture, 0.8)),
    "cropped to 75 %": lambda picture, seed: crop(picture, 0.75),
    "cropped to 60 %": lambda picture, seed: crop(picture, 0.6),
    "cropped to 90 % anywhere": lambda picture, seed: anywhere(picture, 0.9, seed),
    "cropped to 80 % anywhere": lambda picture, seed: anywhere(picture, 0.8, seed),
    "the middle square": lambda picture, seed: ImageOps.fit(picture, (min(picture.size),) * 2),
    "white frame of 3 %": lambda picture, seed: framed(picture, 0.03),
    "white frame of 10 %": lambda picture, seed: framed(picture, 0.1),
}


def real(folder: Path, place: Path) -> None:
    """Print which copies of real pictures are found, and which different pictures are taken for copies."""
    from darkroom.quality.likeness import TONES, copies, looks

    rows: list[dict[str, Any]] = []
    for name in SETS:
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(place, filter="data")
        files = sorted(path for path in (place / name / "images").rglob("*") if path.is_file())
        for number, path in enumerate(files):
            picture = opened(path)
            source = len(rows)
            values = measured(picture)
            group = "photos" if values["entropy"] >= TONES else "photos of few tones"
            group = "emoji" if name == "emoji_3d_128" else group
            rows.append({**values, "source": source, "change": "", "group": group})
            if group == "emoji" and number % 4:
                continue
            for change, make in CHANGES.items():
                rows.append(
                    {**measured(jpeg(make(picture, source))), "source": source, "change": change, "group": group}
                )
    phash, dhash, crops, descriptor = (
        [row[name] for row in rows] for name in ("phash", "dhash", "crops", "descriptor")
    )
    pictures = looks(phash, dhash, crops, descriptor, np.array([row["entropy"] for row in rows], float))
    fresh = np.ones(len(rows), bool)
    found = copies(pictures, fresh, DISTANCE)
    sources = np.array([row["source"] for row in rows])
    same = sources[found.i] == sources[found.j]
    told = {int(j) for i, j in zip(found.i[same], found.j[same], strict=True) if i == sources[j]}
    groups = ("photos", "photos of few tones", "emoji")
    counts = [sum(row["change"] == "" and row["group"] == group for row in rows) for group in groups]
    heads = [f"{group} ({count})" for group, count in zip(groups, counts, strict=True)]
    print(f"\n| copies found | {' | '.join(heads)} |\n|---|---:|---:|---:|")
    for change in CHANGES:
        shares = []
        for group in groups:
            made = [place for place, row in enumerate(rows) if row["change"] == change and row["group"] == group]
            shares.append(f"{100 * np.mean([place in told for place in made]):.1f} %")
        print(f"| {change} | {' | '.join(shares)} |")
    original = np.array([row["change"] == "" for row in rows])
    wrong = ~same & original[found.i] & original[found.j]
    pairs = int(original.sum()) * (int(original.sum()) - 1) // 2
    print(f"\nOf {pairs:,} pairs of different originals {int(wrong.sum())} are taken for copies.")
    crossed = {tuple(sorted(pair)) for pair in zip(sources[found.i[~same]], sources[found.j[~same]], strict=True)}
    every = len(rows) * (len(rows) - 1) // 2
    print(f"With all changed copies ({every:,} pairs), pictures of {len(crossed)} pairs of originals meet.")


def opened(path: Path) -> Image.Image:
    """Upright RGB on white, at most 800 pixels."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    picture.thumbnail((800, 800))
    return picture


def measured(picture: Image.Image) -> dict[str, Any]:
    """What duplicates are found by, as the pass over each picture makes it."""
    from darkroom.quality.decode import reduced
    from darkroom.quality.statistics import SIDE, statistics

    values = statistics(reduced(np.ascontiguousarray(picture), SIDE))
    return {name: values[name] for name in ("phash", "dhash", "crops", "descriptor", "entropy")}


if __name__ == "__main__":
    main()
