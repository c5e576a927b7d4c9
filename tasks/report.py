"""The run's page as a task."""

import os
from pathlib import Path

from prefect.artifacts import create_link_artifact

from darkroom.artifacts import CheckedManifest, Checkpoint, Evaluation, Shards, Verdict
from darkroom.quality.check import summary
from darkroom.recipe import Recipe
from darkroom.report import page

from .stage import open_store, stage


@stage("report")
def report(
    checked: CheckedManifest,
    shards: Shards,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    verdict: Verdict,
    plan: Recipe,
    fresh: bool = False,
) -> Path:
    """Write the page of this run, unless it stands already, and return where it is."""
    settings, _ = open_store()
    target = settings.root / "reports" / f"{plan.name}-{verdict.digest[:12]}.html"
    if fresh or not target.is_file():
        docs = checked.path / summary(checked)["review"]
        page.write(target, plan, checked, shards, checkpoint, evaluation, verdict, os.path.relpath(docs, target.parent))
    create_link_artifact(settings.link(target), link_text="report of this run", key="report", description="Report")
    return target
