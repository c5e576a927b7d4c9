"""The run's page as a task."""

import os
from pathlib import Path

from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from darkroom import history
from darkroom import links as place
from darkroom.artifacts import CheckedManifest, Checkpoint, Evaluation, Shards, Verdict
from darkroom.quality.check import summary
from darkroom.recipe import Recipe
from darkroom.report import chronicle, page
from darkroom.store import marker
from darkroom.tracking import open_registry

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
    settings, store = open_store()
    target = settings.root / "reports" / f"{plan.name}-{verdict.digest[:12]}.html"
    if fresh or not target.is_file():
        found = summary(checked)
        links = [
            ("The review of the data", os.path.relpath(checked.path / found["review"], target.parent)),
            ("The rules of the data gate (Data Docs)", os.path.relpath(checked.path / found["docs"], target.parent)),
            ("The model in MLflow", place.model(settings, plan.name)),
            ("The model's history", chronicle.name_of(plan.name)),
        ]
        if flow_run.ui_url:
            links.append(("This run in Prefect", flow_run.ui_url))
        digest = marker(verdict)["inputs"]["champion"]
        champion = store.find(Evaluation, digest) if digest else None
        past = history.past(open_registry(settings, plan.name), plan.name, checkpoint.digest, verdict.digest)
        page.write(target, plan, checked, shards, checkpoint, evaluation, verdict, links, champion, past)
    create_link_artifact(settings.link(target), link_text="report of this run", key="report", description="Report")
    return target
