"""How often the gate is wrong: a PASS for a model that is no better, and no PASS for one that is.

    .venv/bin/python benchmarks/calibration.py [--pairs 200] [--first 256] [--count 2048] [--processes 2]

Every comparison is the real one: pictures drawn by the pipeline, clean-fid's resize, the extractor's features, and
:func:`darkroom.evaluation.gate.judge` with its looks, plan and bounds, at the defaults of a recipe's ``[gate]``.

- Equal pairs: the same weights on both sides; the challenger's noise is rho z + sqrt(1 - rho^2) z', z being the
  champion's. Both draw from one distribution, yet different pictures. rho runs from 0 to 0.99. A PASS is false.
- Seeds: two trainings that differ in their seed alone, each taken as challenger half of the time, at random. Neither
  way of training is better, so a PASS may come as often as one happens to be better; it is shown, not bounded.
- Known difference: the challenger draws with the usual guidance and the champion with more of it, from the same noise
  or, which is far harder to see, from other noise. Its size is the mean gain of all pairs; how often it is seen stands
  beside the chance that the bounds and the errors promise for a gain of that size.

The interval of a share is Clopper and Pearson's, of 95 % (its upper bound alone: one-sided 95 %).
"""

import argparse
import functools
import json
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy.stats import beta, norm

ROOT = Path(__file__).parents[1]
RHOS = (0.0, 0.5, 0.9, 0.97, 0.99)
LIMIT = 0.03  # by which the upper bound may exceed what was allowed


@dataclass(frozen=True)
class Pair:
    """One comparison: which noise, how much of it in common, and what each side draws with."""

    kind: str
    number: int
    rho: float
    challenger: tuple[str, float]
    """Folder of the pipeline, guidance."""
    champion: tuple[str, float]


def main() -> None:
    """Print the tables, and exit with 1 when the false PASS rate exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="equal pairs; a quarter as many of the other kinds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first", type=int, default=256, help="pictures of each at the first look")
    parser.add_argument("--count", type=int, default=2048, help="and at the last")
    parser.add_argument("--steps", type=int, help="of the sampler, instead of the recipe's")
    parser.add_argument("--guidance", type=float, default=1.0, help="of the sampler")
    parser.add_argument("--worse", type=float, nargs="*", default=[1.02, 1.15], help="guidance of worse champions")
    parser.add_argument("--apart", type=float, nargs="*", default=[1.15], help="the same, drawn from other noise")
    parser.add_argument("--home", type=Path, help="keep what is made there, and go on from it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        home = options.home or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        good, other = ((folder, options.guidance) for folder in prepare(home))
        pairs = [Pair("equal", number, RHOS[number % len(RHOS)], good, good) for number in range(options.pairs)]
        few = max(1, options.pairs // 4)
        pairs += [
            Pair("seeds", number, 1.0, *((good, other) if number % 2 else (other, good))) for number in range(few)
        ]
        for guidance in options.apart:
            kind = f"guidance {guidance:g}, other noise"
            pairs += [Pair(kind, number, 0.0, good, (good[0], guidance)) for number in range(few)]
        for guidance in options.worse:
            pairs += [Pair(f"guidance {guidance:g}", number, 1.0, good, (good[0], guidance)) for number in range(few)]
        gate = {
            "first": options.first,
            "count": options.count,
            "steps": options.steps or 0,
            "guidance": options.guidance,
        }
        results = run(pairs, home, gate, options.processes)
    sys.exit(report(results, gate))


def prepare(home: Path) -> list[str]:
    """Two trainings of the built-in recipe with different seeds; what else is needed is written into ``home``."""
    from safetensors.numpy import load_file, save_file

    from darkroom.collect.manifest import collect
    from darkroom.evaluation.evaluate import reference
    from darkroom.preprocess.shards import preprocess
    from darkroom.quality.check import gate
    from darkroom.recipe import Overrides, load
    from darkroom.store import Store
    from darkroom.training.parts import latents_of
    from darkroom.training.supervise import train

    store, found = Store(home / "store"), []
    for seed in (0, 1):
        plan = load("digits", Overrides(seed=seed, fields={"train.threads": 1}))
        checked = gate(collect(plan.collect, store), plan, store)
        shards = preprocess(checked, plan.preprocess, latents_of(plan), 1, store)
        checkpoint = train(shards, plan, store, "cpu")
        found.append(str(checkpoint.path / "pipeline"))
    held = load_file(reference(shards, plan.evaluate, store, 1, "cpu").path / "features.safetensors")["validation"]
    save_file({"validation": held}, home / "held.safetensors")
    from darkroom.training.data import texts

    (home / "prompts.json").write_text(json.dumps(texts(shards, "validation", "caption")))
    return found


def run(pairs: list[Pair], home: Path, gate: dict[str, Any], processes: int) -> list[dict[str, Any]]:
    """Judge every pair that ``home`` has no result of yet; a line in results.jsonl each."""
    kept = home / "results.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    done = {(one["kind"], one["number"]): one for one in map(json.loads, lines) if one["gate"] == gate}
    left = [pair for pair in pairs if (pair.kind, pair.number) not in done]
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(processes, get_context("spawn"), begin, (str(home), gate))
    with pool, kept.open("a") as file:
        for place, one in enumerate(pool.map(judged, left), 1):
            done[one["kind"], one["number"]] = one
            file.write(json.dumps(one) + "\n")
            file.flush()
            print(f"\r{place} of {len(left)} pairs", end="", file=sys.stderr, flush=True)
    return [done[pair.kind, pair.number] for pair in pairs]


HERE: dict[str, Any] = {}  # what a process loads once


def begin(home: str, gate: dict[str, Any]) -> None:
    """Load what every pair needs."""
    from safetensors.numpy import load_file

    from darkroom.devices import prepare as fix
    from darkroom.evaluation.contrasts import Held
    from darkroom.evaluation.features import load as extractor
    from darkroom.evaluation.verdict import names
    from darkroom.recipe import Gate, load

    fix(1, "cpu")
    plan = load("digits").evaluate
    HERE["steps"] = gate["steps"] or plan.sampler.steps
    HERE["plan"], HERE["asked"], HERE["names"] = plan, gate, names(plan)
    HERE["gate"] = Gate(first=gate["first"], count=gate["count"])
    HERE["held"] = Held(load_file(Path(home) / "held.safetensors")["validation"])
    HERE["prompts"] = json.loads((Path(home) / "prompts.json").read_text())
    HERE["distance"], HERE["clip"] = extractor(plan.features, "cpu", plan.layer), extractor(plan.clip, "cpu")


def judged(pair: Pair) -> dict[str, Any]:
    """The verdict on a pair, with what its primary measure rests on."""
    from darkroom.evaluation.gate import judge

    found = judge(
        lambda first, last: drawn(pair, pair.challenger, pair.rho, first, last),
        lambda first, last: drawn(pair, pair.champion, 1.0, first, last),
        HERE["held"],
        HERE["gate"],
        HERE["names"],
    )
    first = found.rules[0]
    return {
        "kind": pair.kind,
        "number": pair.number,
        "rho": pair.rho,
        "gate": HERE["asked"],
        "decision": found.decision,
        "states": [rule.state for rule in found.rules],
        "count": found.count,
        "planned": found.planned,
        "gain": first.gain,
        "wanted": first.wanted,
        "error": (first.high - first.gain) / found.bounds[len(found.looks) - 1],
        "last_bound": found.bounds[-1],
    }


def drawn(pair: Pair, model: tuple[str, float], rho: float, first: int, last: int) -> Any:
    """The pictures of these numbers by the real pipeline, from noise of which ``rho`` is the pair's common one."""
    from darkroom.diffusion.families import family_of
    from darkroom.diffusion.sampling import initial_noise
    from darkroom.evaluation.contrasts import Drawn
    from darkroom.evaluation.features import folder_features
    from darkroom.evaluation.measures import clip_scores
    from darkroom.evaluation.samples import save_pictures
    from darkroom.randomness import seed_of
    from darkroom.weights.locate import locate

    folder, guidance = model
    pipeline = loaded(folder)
    kind, sampler = family_of(pipeline), HERE["plan"].sampler
    shape, every = kind.latent_shape(pipeline), HERE["prompts"]
    common, own = (seed_of(purpose, pair.kind, pair.number) for purpose in ("common", "own"))
    prompts = [every[index % len(every)] for index in range(first, last)]
    pictures: list[Any] = []
    for start in range(first, last, sampler.batch):
        numbers = range(start, min(start + sampler.batch, last))
        noise = torch.stack(
            [
                rho * initial_noise(common, i, shape) + (1 - rho**2) ** 0.5 * initial_noise(own, i, shape)
                for i in numbers
            ]
        )
        texts = prompts[start - first : start - first + len(numbers)]
        pictures += kind.draw(pipeline, texts, noise, HERE["steps"], guidance)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as place:
        save_pictures(pictures, Path(place))
        features, projected = (folder_features(Path(place), HERE[name]) for name in ("distance", "clip"))
    return Drawn(features, prompts, clip_scores(projected, prompts, locate(HERE["plan"].clip).path))


@functools.cache
def loaded(folder: str) -> Any:
    """A pipeline, once a process."""
    from darkroom.diffusion.pipeline import load_pipeline

    return load_pipeline(Path(folder), "cpu")


def report(results: list[dict[str, Any]], gate: dict[str, Any]) -> int:
    """Print what came out; 1 when false PASSes are too many."""
    from darkroom.recipe import Gate

    alpha = Gate().alpha
    print(f"first look {gate['first']:,}, at most {gate['count']:,} pictures of each, alpha {alpha:g}, usual guards\n")
    print("| pairs | rho | number | PASS | primary better | FAIL | INCONCLUSIVE | pictures of each, mean |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    equal = [one for one in results if one["kind"] == "equal"]
    groups = {("equal", str(rho)): [one for one in equal if one["rho"] == rho] for rho in RHOS}
    groups["equal", "all"] = equal
    for kind in dict.fromkeys(one["kind"] for one in results if one["kind"] != "equal"):
        some = [one for one in results if one["kind"] == kind]
        groups[kind, f"{some[0]['rho']:g}"] = some
    for (kind, rho), some in groups.items():
        if some:
            tally = Counter(one["decision"] for one in some)
            better, mean = (
                sum(one["states"][0] == "held" for one in some),
                sum(one["count"] for one in some) / len(some),
            )
            cells = [kind, rho, len(some), tally["PASS"], better, tally["FAIL"], tally["INCONCLUSIVE"], f"{mean:,.0f}"]
            print("| " + " | ".join(map(str, cells)) + " |")
    # The primary measure alone bounds the rate for any guards: these only take PASSes away.
    wrong = sum(one["states"][0] == "held" for one in equal)
    upper = beta.ppf(0.95, wrong + 1, len(equal) - wrong) if wrong < len(equal) else 1.0
    limit = alpha + LIMIT
    print(f"\nEqual pairs called better: {wrong} of {len(equal)}, upper 95 % bound {upper:.1%} (limit {limit:.0%}).")
    print("\n| known difference | mean gain | called better | expected of a gain of that size |\n|---|---:|---:|---:|")
    for (kind, _), some in groups.items():
        if kind.startswith("guidance") and some:
            gain = sum(one["gain"] for one in some) / len(some)
            better = sum(one["states"][0] == "held" for one in some)
            # By the last look: its error is that of the count at which the pair stopped, scaled to the planned one.
            chances = [
                norm.cdf(gain / (one["error"] * (one["count"] / one["planned"]) ** 0.5) - one["last_bound"])
                for one in some
            ]
            low, high = beta.ppf(0.025, better, len(some) - better + 1), beta.ppf(0.975, better + 1, len(some) - better)
            low, high = (0.0 if better == 0 else low), (1.0 if better == len(some) else high)
            expected = sum(chances) / len(chances)
            print(f"| {kind} | {gain:.3g} | {better} of {len(some)} ({low:.0%} to {high:.0%}) | {expected:.0%} |")
    return int(upper > limit)


if __name__ == "__main__":
    main()
