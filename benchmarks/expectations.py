"""What judging a whole table costs: both suites, the drift, and their Data Docs, at 10,000 to 1,000,000 rows.

    .venv/bin/python benchmarks/expectations.py [--rows 10000 100000 1000000] [--each]

Each size has a process of its own, so that its peak of memory is its own. The table is made up, with every column of a
checked manifest and the faults of an ordinary one; making it is not counted, but its memory is. ``--each`` lists the
CPU seconds of every rule at the largest size instead, each in a suite of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

ROOT = Path(__file__).parents[1]
LIMITS = "the limits: 30 CPU seconds and 4 GiB at 1,000,000 rows, and time that grows linearly"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--each", action="store_true", help="every rule apart")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child)))
    elif given.each:
        each(max(given.rows))
    else:
        print("| rows | suites: CPU s | of which start-up | drift: CPU s | wall s | peak MiB | of which tables |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        for rows in given.rows:
            command = [sys.executable, __file__, "--child", str(rows)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            numbers = [found[key] for key in ("suites", "start", "drift", "wall", "peak", "table")]
            print(f"| {rows:,} | " + " | ".join(f"{number:,.1f}" for number in numbers) + " |")
        print(f"\n({LIMITS})")


def measure(rows: int) -> dict[str, float]:
    """CPU and wall seconds and MiB of one size, in this process."""
    sys.path.insert(0, str(ROOT))
    from darkroom.quality import checkpoint, drift

    old = table(rows, seed=2)
    old = old.loc[old["accepted"], list(drift.COLUMNS)].reset_index(drop=True)
    new = table(rows, seed=1)
    holding = peak()
    wall, start = time.monotonic(), time.process_time()
    compared = drift.compare(new.loc[new["accepted"], list(drift.COLUMNS)].reset_index(drop=True), old)
    drifted = time.process_time()
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        import great_expectations  # noqa: F401 - a fixed cost, whatever the rows

        began = time.process_time()
        tables = {"manifest": new, "pictures": new, "drift": compared.table()}
        files = {name: ROOT / "expectations" / f"{name}.json" for name in tables}
        among = {"pictures": new["accepted"]}
        outcome = checkpoint.run(tables, files, Path(folder), run_name="benchmark", among=among)
        ended = time.process_time()
    assert outcome.passed, outcome.findings
    return {
        "suites": ended - drifted,
        "start": began - drifted,
        "drift": drifted - start,
        "wall": time.monotonic() - wall,
        "peak": peak(),
        "table": holding,
    }


def each(rows: int) -> None:
    """Print the CPU seconds of every rule, in a suite of its own, the slowest first."""
    sys.path.insert(0, str(ROOT))
    from darkroom.quality import checkpoint

    new = table(rows, seed=1)
    tables = {"manifest": new, "pictures": new[new["accepted"]].reset_index(drop=True)}
    found = []
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        for name, judged in tables.items():
            suite = json.loads((ROOT / "expectations" / f"{name}.json").read_text("utf-8"))
            for rule in [suite["expectations"][0], *suite["expectations"]]:  # the first pays for imports
                file = Path(folder) / "one.json"
                file.write_text(json.dumps({"expectations": [rule]}), "utf-8")
                start = time.process_time()
                checkpoint.run({"one": judged}, {"one": file}, Path(folder) / "out", run_name="one")
                found.append((time.process_time() - start, name, rule["type"], json.dumps(rule["kwargs"])))
    for seconds, name, kind, arguments in sorted(found[1:], reverse=True):
        print(f"{seconds:6.2f}  {name}: {kind} {arguments[:100]}")


def peak() -> float:
    """The largest memory that this process has had. MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(rows: int, seed: int) -> pd.DataFrame:
    """A made-up table as check judges it: 3 % refused, 2 % copies, 1,000 labels, captions of which few repeat."""
    random = np.random.default_rng(seed)

    def digests(digits: int = 64) -> pd.Series:
        text = pa.py_buffer(random.bytes(rows * digits // 2).hex().encode())
        ends = pa.py_buffer(np.arange(0, (rows + 1) * digits, digits, dtype=np.int64))
        return pd.Series(pa.LargeStringArray.from_buffers(rows, ends, text), dtype="str")

    def lists(share: float, *values: str) -> pd.Series:
        held = [[], *([value] for value in values)]
        place = np.where(random.random(rows) < share, random.integers(1, len(held), rows), 0)
        return pd.Series([held[one] for one in place], dtype=object)

    def some(*values: str | None, p: list[float] | None = None) -> pd.Series:
        return pd.Series(np.array(values, dtype=object)[random.choice(len(values), rows, p=p)])

    labels = random.integers(0, 1000, rows)
    words = random.integers(2, 30, rows)
    reasons = lists(
        0.03, "check: undecodable: cut short", "check: no caption", "check: too small: 4x4", "check: duplicate: of x"
    )
    accepted = np.array([not one for one in reasons])
    cluster, numbers = digests(), np.arange(rows)
    copies = (random.random(rows) < 0.02) & ~accepted
    cluster[copies] = cluster[numbers[copies] - 1].to_numpy()
    frame = pd.DataFrame(
        {
            "row_id": digests(),
            "id": digests(),
            "path": [f"images/{label}/{number:07d}.jpg" for number, label in enumerate(labels)],
            "source": "folder",
            "origin": None,
            "licence": some("CC-BY-4.0", "CC0-1.0", "MIT (someone)"),
            "caption": [f"a photo of thing {label}, number {number} of {rows}" for number, label in enumerate(labels)],
            "label": [f"thing {label}" for label in labels],
            "sidecar": None,
            "bytes": random.lognormal(11, 1, rows).astype(np.int64),
            "reasons": reasons,
            "width": random.choice([512, 640, 768, 1024], rows),
            "height": random.choice([512, 640, 768, 1024], rows),
            "format": some("JPEG", "PNG", "WEBP", p=[0.8, 0.15, 0.05]),
            "mode": some("RGB", "RGBA", "L", p=[0.9, 0.05, 0.05]),
            "frames": 1,
            "orientation": 1,
            "sharpness": random.lognormal(5, 0.7, rows),
            "entropy": random.normal(7, 0.3, rows),
            "brightness_p5": random.normal(20, 5, rows),
            "brightness_p99": random.normal(230, 10, rows),
            "saturation": random.beta(2, 5, rows),
            "border": np.where(random.random(rows) < 0.95, 0.0, random.random(rows)),
            "alpha": 0.0,
            "pixels": digests(),
            "phash": digests(16),
            "dhash": digests(16),
            "crops": digests(),
            "descriptor": digests(384),
            "converted": lists(0.1, "rotated by EXIF", "transparency", "palette", "ICC profile"),
            "working": digests(),
            "caption_source": some("source", "sidecar", "label", p=[0.85, 0.1, 0.05]),
            "mended": lists(0.1, "markup", "spaces", "mojibake"),
            "caption_words": words,
            "caption_tokens": words * 1.3,
            "caption_language": some("en", "zh", None, p=[0.9, 0.08, 0.02]),
            "duplicate_cluster": cluster,
            "split": some("train", "validation", p=[0.9, 0.1]),
            "flags": lists(0.05, "check: blurred: 3.2", "check: language: de", "check: repeated caption: 30"),
            "accepted": accepted,
        }
    )
    measured = ["width", "height", "sharpness", "entropy", "brightness_p5", "brightness_p99", "saturation"]
    return frame.assign(**{name: frame[name].astype(np.float64).where(accepted) for name in measured})


if __name__ == "__main__":
    main()
