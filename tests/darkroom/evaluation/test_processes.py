"""The same numbers, to the last printed digit, on one and on two threads and processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from darkroom.evaluation.contrasts import MEASURES, Drawn, Held
from darkroom.evaluation.features import folder_features, load
from darkroom.evaluation.frechet import frechet_of_sets
from darkroom.evaluation.gate import Draw, judge
from darkroom.evaluation.samples import save_pictures
from darkroom.evaluation.sets import compared
from darkroom.recipe import Gate

CLIP, BATCH = "builtin:clip-digits", 32


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def printed(features: np.ndarray, others: np.ndarray, real: np.ndarray) -> str:
    """Every number of an evaluation and of a verdict, as the pages print them."""
    prompts = ["a", "b"] * (len(features) // 2)
    found = compared(features, real, prompts, prompts[: len(real)], "fd_x")
    found |= {f"distance {place}": one for place, one in enumerate(frechet_of_sets(features, real))}

    def draw(rows: np.ndarray) -> Draw:
        return lambda first, last: Drawn(rows[first:last], prompts[first:last], 60 + rows[first:last, 0])

    verdict = judge(
        draw(features),
        draw(others),
        Held(real),
        Gate(first=64, count=len(features)),
        {name: f"{name}_x" for name in MEASURES},
    )
    plain = json.dumps([found, verdict.plain()])
    return json.dumps(json.loads(plain, parse_float=lambda text: f"{float(text):.5g}"))


HALF = f"""
import sys, numpy, torch
from pathlib import Path
from darkroom.evaluation.features import folder_features, load
torch.set_num_threads(1)
numpy.save(sys.argv[2], folder_features(Path(sys.argv[1]), load({CLIP!r}, "cpu", "pooled"), batch={BATCH}))
"""


def test_threads_do_not_show() -> None:
    random = np.random.default_rng(0)
    mix = random.normal(size=(48, 48)) / 7
    features, others, real = (
        random.normal(size=(count, 48)) @ mix * scale for count, scale in ((256, 1.0), (256, 1.1), (200, 1.0))
    )
    with threads(1):
        one = printed(features, others, real)
    with threads(2):
        assert printed(features, others, real) == one


def test_features_that_two_processes_made_give_the_same_numbers(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (256, 16, 16, 3), dtype=np.uint8)
    save_pictures(list(pictures), tmp_path / "all")
    for place, part in enumerate(np.split(pictures, 2)):
        save_pictures(list(part), tmp_path / f"half{place}")
    other = subprocess.Popen(
        [sys.executable, "-c", HALF, str(tmp_path / "half1"), str(tmp_path / "half1.npy")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with threads(1):
        extractor = load(CLIP, "cpu", "pooled")
        whole, first = (folder_features(tmp_path / name, extractor, batch=BATCH) for name in ("all", "half0"))
    assert other.wait(timeout=300) == 0
    together = np.concatenate([first, np.load(tmp_path / "half1.npy")])
    real = whole[::2] * 1.01
    assert printed(together, together[::-1], real) == printed(whole, whole[::-1], real)
