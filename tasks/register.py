"""Registration as a task: the version, its alias, and the links to both."""

from pathlib import Path

from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from darkroom import links
from darkroom.artifacts import CheckedManifest, Checkpoint, Evaluation, Verdict
from darkroom.evaluation.verdict import read
from darkroom.promotion import Registered, settle
from darkroom.recipe import Recipe
from darkroom.report import chronicle
from darkroom.tracking import RunDescription, open_registry

from .events import announce, announce_moves
from .stage import open_store, stage


@stage("register")
def register(
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    verdict: Verdict,
    checked: CheckedManifest,
    report: Path,
    run: RunDescription,
    plan: Recipe,
) -> Registered:
    """The registered version and what was decided about it."""
    settings, store = open_store()
    registry = open_registry(settings, plan.name)
    here = {"name": str(flow_run.name), "id": str(flow_run.id), "url": str(flow_run.ui_url)} if flow_run.id else None
    base = f"{settings.link(report.parent)}/"
    done = settle(registry, run, plan, checkpoint, evaluation, verdict, checked, report, store, here, base=base)
    if not done.reused:
        chronicle.tell(registry, plan.name, settings)
    create_link_artifact(
        links.version(settings, done.name, done.version),
        link_text=f"{done.name} version {done.version}",
        key="registered-version",
        description=f"{done.decision}: {done.reason}",
    )
    announce_moves(done.moves)
    if done.waits:
        waiting = {
            "model": done.name,
            "version": done.version,
            "recipe": plan.name,
            "why": f"{read(verdict).decision}: {done.reason}",
            "page": settings.link(report),
        }
        announce("darkroom.challenger.waiting", done.name, waiting)
    return done
