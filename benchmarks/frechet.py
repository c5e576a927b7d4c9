"""The Fréchet distance beside clean-fid's, from the same features to the number: statistics and distance.

    .venv/bin/python benchmarks/frechet.py [--pictures 10000] [--dimensions 2048] [--repeats 3]

Both get the same float64 features of the generated pictures; the real ones are known, so clean-fid has their mean and
covariance ready (as its stored statistics are) and we a root of the covariance (kept like those). Interleaved, medians;
the two numbers and their relative difference are printed. Where OPENBLAS_CORETYPE names another processor,
unset it: it slows both sides.
"""

import argparse
import statistics
import sys
import time

import numpy as np
from cleanfid import fid

from darkroom.evaluation.frechet import Normal, distance


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    mix = random.normal(size=(options.dimensions, options.dimensions)) / options.dimensions**0.5
    generated, real = (
        np.maximum(random.normal(size=(options.pictures, options.dimensions)) @ mix + shift, 0) for shift in (0.1, 0.2)
    )
    known, mean, covariance = Normal(real), real.mean(axis=0), np.cov(real, rowvar=False)
    began = time.perf_counter()
    _ = known.root
    root_seconds = time.perf_counter() - began
    seconds: dict[str, list[float]] = {"clean-fid": [], "darkroom": []}
    values = {}
    for _repeat in range(options.repeats):
        began = time.perf_counter()
        own = np.mean(generated, axis=0), np.cov(generated, rowvar=False)
        values["clean-fid"] = float(fid.frechet_distance(*own, mean, covariance))
        seconds["clean-fid"].append(time.perf_counter() - began)
        began = time.perf_counter()
        values["darkroom"] = distance(Normal(generated), known)
        seconds["darkroom"].append(time.perf_counter() - began)
        print({name: round(found[-1], 2) for name, found in seconds.items()}, file=sys.stderr, flush=True)
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    ratio = statistics.median(
        theirs / ours for theirs, ours in zip(seconds["clean-fid"], seconds["darkroom"], strict=True)
    )
    print(f"{options.pictures:,} pictures, {options.dimensions:,} dimensions\n")
    print("| what | seconds | distance |\n|---|---:|---:|")
    for name, value in values.items():
        print(f"| {name} | {middle[name]:.2f} | {value:.9g} |")
    off = abs(values["darkroom"] / values["clean-fid"] - 1)
    print(f"\n{ratio:.1f} x as fast, relative difference {off:.1g}; the real root, once: {root_seconds:.1f} s")


if __name__ == "__main__":
    main()
