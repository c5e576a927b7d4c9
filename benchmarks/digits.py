"""Are the digits right? Trains the built-in recipe for several seeds and judges what it draws.

    .venv/bin/python benchmarks/digits.py --seeds 0 1 2

For each seed: a run of recipes/digits.toml in a home folder of its own, then 200 pictures (20 a class, in all wordings)
through MLflow's ``pyfunc``. The judge knows nothing of darkroom: scikit-learn's SVC, trained on all of ``load_digits``;
pictures are brought to 8x8 by averaging areas. Distance and nearness to training pictures are the run's own.
"""

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
EACH = 20


def main() -> None:
    """Print a Markdown table, one line a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of the recipe"
    )
    parser.add_argument("--home", type=Path, help="keep the runs there")
    options = parser.parse_args()
    print("| seed | right of 200 | distance ratio | nearest ratio | training s | run s |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            home = (options.home or Path(folder)) / f"seed-{seed}"
            outcome = run(seed, home, options.set)
            right = share_right(home, outcome)
            metrics, seconds = outcome["metrics"], outcome["seconds"]
            print(
                f"| {seed} | {right:.1%} | {metrics['fd_clip_digits_ratio']:.3f} | {metrics['nearest_ratio']:.3f} "
                f"| {seconds['train']:.0f} | {sum(seconds.values()):.0f} |",
                flush=True,
            )


def run(seed: int, home: Path, overrides: list[str]) -> dict[str, Any]:
    """The outcome of one run of the built-in recipe."""
    settings = [argument for assignment in [f"seed={seed}", *overrides] for argument in ("--set", assignment)]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(ROOT / "recipes/digits.toml"), "--json", *settings],
        env={**os.environ, "DARKROOM_HOME": str(home)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def share_right(home: Path, outcome: dict[str, Any]) -> float:
    """The share of 200 drawn digits that an independent classifier takes for what was asked for."""
    import pandas as pd
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    from darkroom.collect.digits import WORDINGS, caption
    from darkroom.settings import Settings
    from darkroom.tracking import open_registry

    wanted = [digit for digit in range(10) for _ in range(EACH)]
    prompts = [caption(digit, index % len(WORDINGS)) for index, digit in enumerate(wanted)]
    registry = open_registry(Settings(home=home), "digits")
    model = registry.load(registry.resolve(f"digits/{outcome['model']['version']}"))
    answer = model.predict(pd.DataFrame({"prompt": prompts}), params={"seed": 1})
    pictures = [Image.open(io.BytesIO(base64.b64decode(text))).convert("L") for text in answer["image"]]
    small = [np.asarray(picture.resize((8, 8), Image.Resampling.BOX), dtype=float) * (16 / 255) for picture in pictures]
    scans = load_digits()
    judge = SVC(gamma=0.001).fit(scans.data, scans.target)
    return float((judge.predict(np.stack(small).reshape(len(small), -1)) == wanted).mean())


if __name__ == "__main__":
    main()
