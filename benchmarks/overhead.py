"""What Prefect, MLflow, Great Expectations and the dashboards' artifacts cost beyond the work itself.

    .venv/bin/python benchmarks/overhead.py

Runs recipes/digits.toml twice, each time in an empty home: once by `darkroom run`, as `make demo` does, and once as
plain function calls in one process, without servers, tasks, expectations or a registry.
Both train in the same subprocess.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

PLAIN = """
import sys
from pathlib import Path
from darkroom.collect.manifest import collect
from darkroom.artifacts import CheckedManifest
from darkroom.evaluation.evaluate import evaluate
from darkroom.preprocess.shards import preprocess
from darkroom.quality.check import ask, judge
from darkroom.recipe import load
from darkroom.store import Store
from darkroom.training.parts import latents_of
from darkroom.training.supervise import train

plan, store = load(sys.argv[1]), Store(Path(sys.argv[2]))
manifest = collect(plan.collect, store)
def check(work):
    rows, _, _ = judge(ask(manifest, plan, store), None, store, 2, lambda done, total: None)
    rows[rows["accepted"]].drop(columns=["reasons", "accepted"]).to_parquet(work / "checked.parquet")
checked = store.get_or_build(CheckedManifest, manifest.digest, check, inputs={})
shards = preprocess(checked, plan.preprocess, latents_of(plan), plan.train.threads, store)
checkpoint = train(shards, plan, store, "cpu")
evaluate(checkpoint, shards, plan.evaluate, store, threads=plan.train.threads)
"""


def main() -> None:
    """Print both times and their difference."""
    recipe = str(ROOT / "recipes/digits.toml")
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        whole = seconds([sys.executable, "-m", "flows.cli", "run", recipe], {"DARKROOM_HOME": f"{folder}/whole"})
        again = seconds([sys.executable, "-m", "flows.cli", "run", recipe], {"DARKROOM_HOME": f"{folder}/whole"})
        plain = seconds([sys.executable, "-c", PLAIN, recipe, f"{folder}/plain"], {})
    print("| what | wall seconds |\n|---|---:|")
    print(f"| `darkroom run`, empty home | {whole:.1f} |")
    print(f"| the same work as function calls | {plain:.1f} |")
    print(f"| orchestration | {whole - plain:.1f} |")
    print(f"| `darkroom run` again, nothing changed | {again:.1f} |")


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of a command, which must succeed."""
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
