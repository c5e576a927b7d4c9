"""The verdict as an artifact: limits and integrity of the challenger, then its comparison with the champion."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.artifacts import Checkpoint, Evaluation, Reference, Shards, Verdict
from darkroom.errors import RecipeError
from darkroom.randomness import seed_of
from darkroom.recipe import Evaluate, Gate
from darkroom.stages import stage_digest
from darkroom.store import Store, write_json

from .evaluate import metrics_of, score_of
from .gate import Draw, Judgement

if TYPE_CHECKING:
    from .contrasts import Drawn
    from .samples import Drawer

Progress = Callable[[int, int], None]
EACH = 2  # pictures at the first look for each dimension of the features, of which a Fréchet distance may be judged
SHOWN = 32  # pictures of each that the page shows side by side
BLANK = 0.05  # flat pictures beyond the held-out ones' share that a working model may draw


def compare(
    challenger: tuple[Checkpoint, Evaluation],
    champion: tuple[Checkpoint, Evaluation] | None,
    shards: Shards,
    reference: Reference,
    plan: Evaluate,
    gate: Gate,
    store: Store,
    *,
    champion_checkpoint: str = "",
    threads: int = 1,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
    fresh: bool = False,
) -> Verdict:
    """Judge a challenger by the gate's limits and, where there is a champion, against it.

    ``champion_checkpoint`` is the digest of the champion's checkpoint, which is the challenger's own where the champion
    is only measured anew; it is recorded, so that the verdict serves against that champion alone. ``progress`` is told
    (pictures drawn by one of both, in all) of every part that is drawn.
    """
    evaluation, asked = challenger[1], settled(plan, gate)
    inputs = {
        "challenger": evaluation.digest,
        "champion": champion[1].digest if champion else None,
        "champion_checkpoint": champion_checkpoint,
        "reference": reference.digest,
    }

    def build(work: Path) -> None:
        measure = names(plan)[asked.measure or "frechet"]
        metrics = metrics_of(evaluation)
        broken = [*faults(metrics), *broken_limits(metrics, gate), *copied(metrics, gate)]
        if broken:
            judgement = Judgement("FAIL", tuple(broken), measure)
        elif champion is None:
            what = "the champion already" if champion_checkpoint else "the first version"
            judgement = Judgement("PASS", (f"it is {what} and meets every limit of the recipe",), measure)
        else:
            judgement = _duel(
                challenger, champion, shards, reference, plan, asked, store, work, threads, device, progress
            )
        write_json(work / "verdict.json", judgement.plain())

    fields = gate.digest_fields()
    return store.get_or_build(
        Verdict, stage_digest("verdict", fields, inputs), build, inputs=inputs, fields=fields, fresh=fresh
    )


def read(verdict: Verdict) -> Judgement:
    """What a verdict says."""
    return Judgement.of(json.loads((verdict.path / "verdict.json").read_text("utf-8")))


def settled(plan: Evaluate, gate: Gate) -> Gate:
    """The gate with a primary measure: its own, else the Fréchet distance where the first look suffices for it.

    A covariance of D dimensions wants more than D pictures: with fewer, the distance says more of their number than of
    the model, and its interval is not to be relied on. Raises :class:`RecipeError` where the recipe asks for that.
    """
    from .features import dimensions

    if gate.measure not in (None, "frechet") and "frechet" not in gate.guards:
        return gate
    size = dimensions(plan.features, plan.layer)
    enough = gate.first >= EACH * size
    wanting = [f"gate.measure = {gate.measure!r}"] if gate.measure == "frechet" else []
    wanting += ["gate.guards.frechet"] if "frechet" in gate.guards else []
    if wanting and not enough:
        raise RecipeError(
            f"{' and '.join(wanting)}: a Fréchet distance of {plan.features!r} has {size:,} dimensions and wants "
            f"{EACH * size:,} pictures at the first look, and gate.first is {gate.first:,}: raise gate.first (and "
            "gate.count), or take measure = 'kernel', which is steady with few"
        )
    return gate.model_copy(update={"measure": gate.measure or ("frechet" if enough else "kernel")})


def names(plan: Evaluate) -> dict[str, str]:
    """What the gate's measures are called everywhere: after their extractors."""
    from .features import identity, kernel_of

    measure, _ = identity(plan.features, plan.sha256)
    extractor = "inception" if measure == "fid" else measure.removeprefix("fd_")
    shares = {name: f"{name}_{extractor}" for name in ("precision", "density", "coverage", "diversity")}
    return {"frechet": measure, "kernel": kernel_of(measure), "clip_score": score_of(plan), **shares}


def faults(metrics: dict[str, float]) -> list[str]:
    """One sentence for each sign that the model is broken, whatever the recipe's limits are."""
    found = []
    blank, usual = (metrics.get(name, 0.0) for name in ("blank_share", "blank_share_validation"))
    if blank > usual + BLANK:
        found.append(
            f"{blank:.0%} of its pictures are one flat colour, and {usual:.0%} of the held-out ones: it is broken"
        )
    found += [f"{name} is {value}, which is no number" for name, value in sorted(metrics.items()) if value != value]
    return found


def broken_limits(metrics: dict[str, float], gate: Gate) -> list[str]:
    """One sentence for each limit that is not met; a measure that is missing or not a number meets none."""
    found = []
    for name, limit in sorted(gate.limits.items()):
        value = metrics.get(name, float("nan"))
        if limit.min is not None and not value >= limit.min:
            found.append(f"{name} is {value:.4g}, below the limit {limit.min:.4g}")
        if limit.max is not None and not value <= limit.max:
            found.append(f"{name} is {value:.4g}, above the limit {limit.max:.4g}")
    return found


def copied(metrics: dict[str, float], gate: Gate) -> list[str]:
    """One sentence where so many pictures near to training pictures are no coincidence."""
    chance = metrics.get("memorised_p", 1.0)
    if chance >= gate.memorisation:
        return []
    return [
        f"{metrics['memorised_share']:.1%} of its pictures are nearer to a training picture than 99 % of the held-out "
        f"ones are; so many come by chance with probability {chance:.1g}, and gate.memorisation is "
        f"{gate.memorisation:g}: it copies"
    ]


def _duel(
    challenger: tuple[Checkpoint, Evaluation],
    champion: tuple[Checkpoint, Evaluation],
    shards: Shards,
    reference: Reference,
    plan: Evaluate,
    gate: Gate,
    store: Store,
    work: Path,
    threads: int,
    device: str,
    progress: Progress,
) -> Judgement:
    """Both models on the same prompts and noise, until there is a verdict."""
    from PIL import Image
    from safetensors.numpy import load_file

    from darkroom.diffusion.sampling import grid

    from .contrasts import Drawn, Held
    from .gate import judge
    from .reconstruction import is_autoencoder
    from .samples import PICTURES, Drawer

    held = Held(load_file(reference.path / "features.safetensors")["validation"])
    both = (challenger, champion)
    rebuild = [is_autoencoder(checkpoint.path / "pipeline") for checkpoint, _ in both]
    if any(rebuild):
        if not all(rebuild):
            raise RecipeError(
                "one of challenger and champion is an autoencoder and the other draws from prompts: they cannot be "
                "compared, so register the new one under another name"
            )
        made = [load_file(one.path / "features.safetensors")["generated"] for _, one in both]
        every = [Drawn(rows, [""] * len(rows), rows[:, 0] * float("nan")) for rows in made]
        return judge(_given(every[0]), _given(every[1]), held, gate, names(plan), most=len(made[0]))

    # The noise follows from both models, so that a champion is not judged for ever on the noise that chose it.
    seed = seed_of("comparison", *sorted(checkpoint.digest for checkpoint, _ in both))
    drawers = [
        Drawer(checkpoint, shards, plan, seed, store, threads=threads, device=device, progress=progress)
        for checkpoint, _ in both
    ]
    found = judge(_drawn(drawers[0]), _drawn(drawers[1]), held, gate, names(plan))
    for drawer, name in zip(drawers, ("challenger", "champion"), strict=True):
        shown = sorted((drawer.samples(0, found.first).path / PICTURES).iterdir())[:SHOWN]
        grid([Image.open(path) for path in shown], columns=8).save(work / f"{name}.png")
    write_json(work / "prompts.json", drawers[0].prompts(0, SHOWN))
    return found


def _drawn(drawer: "Drawer") -> Draw:
    """The pictures of a model as the gate asks for them."""
    from .contrasts import Drawn

    return lambda first, last: Drawn(
        drawer.features(first, last), drawer.prompts(first, last), drawer.scores(first, last)
    )


def _given(made: "Drawn") -> Draw:
    """Pictures that exist already."""
    return lambda first, last: made.first(last)
