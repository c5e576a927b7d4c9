"""Evaluation as a task, and the comparison with the champion."""

import contextlib

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from darkroom.artifacts import Checkpoint, Evaluation, Shards, Verdict
from darkroom.errors import ServiceUnavailable
from darkroom.evaluation import evaluate as evaluating
from darkroom.evaluation import verdict as judging
from darkroom.promotion import recorded_verdict
from darkroom.recipe import Recipe
from darkroom.tracking import open_registry

from .pictures import show_picture
from .stage import Progress, open_store, stage


def look_ahead(plan: Recipe) -> None:
    """Raise now what the comparison would raise after training: too few pictures for its distance."""
    if plan.gate.measure == "frechet" or "frechet" in plan.gate.guards:
        with contextlib.suppress(ServiceUnavailable):  # weights to download: evaluation waits for whoever is away
            judging.settled(plan.evaluate, plan.gate)


@stage("evaluate")
def evaluate(
    checkpoint: Checkpoint, shards: Shards, plan: Recipe, others: dict[str, Shards], fresh: bool = False
) -> Evaluation:
    """The measures of this checkpoint alone, also on other data sets."""
    progress = Progress("evaluate-progress", "pictures drawn")
    evaluation = _measured(checkpoint, shards, plan, others, progress, fresh)
    show_picture(
        evaluation.path / "grid.png", "sample-grid", "Samples on the evaluation's fixed noise", open_store()[0]
    )
    return evaluation


@stage("compare")
def compare(
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    shards: Shards,
    plan: Recipe,
    others: dict[str, Shards],
    fresh: bool = False,
) -> Verdict:
    """The verdict on the challenger; the champion is drawn with the same noise and prompts, once."""
    settings, store = open_store()
    registry = open_registry(settings, plan.name)
    champion = registry.with_alias(plan.name, "champion")
    other = None
    if champion is not None and champion.checkpoint == checkpoint.digest:
        known = recorded_verdict(champion, evaluation, plan.gate, store)
        if known is not None and not fresh:
            return known
    elif champion is not None:
        get_run_logger().info("the champion is %s", champion.uri)
        drawn = Checkpoint(champion.checkpoint, registry.pipeline_folder(champion).parent)
        measured = _measured(
            drawn, shards, plan, others, Progress("champion-progress", "the champion's pictures drawn")
        )
        other = (drawn, measured)
    reference = evaluating.reference(shards, plan.evaluate, store, plan.train.threads, settings.device)
    verdict = judging.compare(
        (checkpoint, evaluation),
        other,
        shards,
        reference,
        plan.evaluate,
        plan.gate,
        store,
        champion_checkpoint=champion.checkpoint if champion else "",
        threads=plan.train.threads,
        device=settings.device,
        progress=Progress("compare-progress", "pictures drawn for the comparison"),
        fresh=fresh,
    )
    _show(evaluation, other[1] if other else None, verdict)
    return verdict


def _measured(
    checkpoint: Checkpoint,
    shards: Shards,
    plan: Recipe,
    others: dict[str, Shards],
    progress: Progress,
    fresh: bool = False,
) -> Evaluation:
    """The evaluation of a checkpoint by the plan's measures, made unless the store has it."""
    settings, store = open_store()
    return evaluating.evaluate(
        checkpoint,
        shards,
        plan.evaluate,
        store,
        others=others,
        threads=plan.train.threads,
        device=settings.device,
        progress=progress,
        fresh=fresh,
    )


def _show(evaluation: Evaluation, champion: Evaluation | None, verdict: Verdict) -> None:
    new = evaluating.metrics_of(evaluation)
    old = evaluating.metrics_of(champion) if champion else {}
    judgement = judging.read(verdict)
    create_table_artifact(
        [
            {"measure": name, "challenger": f"{value:.5g}", "champion": f"{old[name]:.5g}" if name in old else "-"}
            for name, value in sorted(new.items())
        ],
        key="verdict",
        description=f"**{judgement.decision}**: {'; '.join(judgement.reasons)}",
    )
