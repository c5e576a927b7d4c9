"""The steps of monitoring as tasks, with the table and the pictures on the run's page."""

from pathlib import Path
from tempfile import TemporaryDirectory

from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from darkroom import champion, monitoring
from darkroom.artifacts import CheckedManifest, Checkpoint, Evaluation, Shards
from darkroom.errors import RecipeError
from darkroom.evaluation.samples import Drawer
from darkroom.monitoring import Monitored, Same
from darkroom.question import checkpoint_of, plain
from darkroom.recipe import Recipe
from darkroom.registry import Version
from darkroom.tracking import open_registry

from .events import announce, announce_moves
from .pictures import show_small
from .stage import open_store, stage


@stage("champion")
def champion_of(model: str) -> tuple[Version, Checkpoint]:
    """The champion and its checkpoint; a move on MLflow's page is noticed. Raises ``RecipeError`` without one."""
    settings, store = open_store()
    registry = open_registry(settings, model)
    noticed = champion.notice(registry, model, store)
    announce_moves([noticed] if noticed else [])
    found = registry.with_alias(model, champion.CHAMPION)
    if found is None:
        raise RecipeError(
            f"{model} has no champion to monitor: `darkroom run` registers a version, `darkroom promote` makes one "
            "champion, and `darkroom doctor` says whether one was lost"
        )
    return found, checkpoint_of(registry, found, store)


@stage("draw again")
def draw_again(version: Version, checkpoint: Checkpoint, shards: Shards, plan: Recipe) -> Same:
    """Whether the champion draws the pictures of the first time."""
    settings, store = open_store()
    drawer = Drawer(checkpoint, shards, plan.evaluate, 0, store, threads=plan.train.threads, device=settings.device)
    texts = list(dict.fromkeys(drawer.texts)) or [""]
    prompts = [texts[place % len(texts)] for place in range(plan.monitor.pictures)]
    registry = open_registry(settings, plan.name)
    return monitoring.draw_again(registry, version, prompts, plan.monitor.tolerance, settings.device)


@stage("judge")
def judge(
    version: Version, plan: Recipe, checked: CheckedManifest, evaluation: Evaluation, same: Same, data: str
) -> Monitored:
    """Everything held against the recipe's limits, and logged."""
    from darkroom.diffusion.sampling import grid

    settings, store = open_store()
    registry = open_registry(settings, plan.name)
    found = monitoring.judge(registry, version, plan, checked, evaluation, same, data, store)
    with TemporaryDirectory(prefix="darkroom-") as folder:
        picture = Path(folder) / "grid.png"
        grid([monitoring.opened(text) for text in same.pictures], columns=8).save(picture)
        monitoring.log(registry, found, picture)
        show_small(picture.read_bytes(), "monitor-pictures", "The fixed pictures, drawn again")
    _show(found)
    return found


def tell(found: Monitored, recipe: str) -> None:
    """Emit the events of what was found; ``recipe`` is what a retraining would be given."""
    told = {"model": found.model, "version": found.version, "page": flow_run.ui_url or ""}
    if found.drifted:
        announce("darkroom.champion.drifted", found.model, {**told, "why": "; ".join(found.drifted)})
    if found.due:
        announce("darkroom.retraining.due", found.model, {**told, "recipe": recipe, "why": "; ".join(found.due)})


def _show(found: Monitored) -> None:
    watched = {one.measure: one for one in found.watched}
    rows = [
        {
            "measure": name,
            "now": f"{value:.5g}",
            "at registration": f"{watched[name].then:.5g}" if name in watched else "-",
            "worse": f"{watched[name].worse:+.1%}" if name in watched else "-",
        }
        for name, value in sorted(found.measures.items(), key=lambda item: (item[0] not in watched, item[0]))
    ]
    new = "unknown" if found.new_rows is None else f"{found.new_rows:,}"
    create_table_artifact(
        rows,
        key="monitor",
        description=f"**{found.decision.replace('_', ' ')}**: {plain(found.reason)}. Version {found.version} of "
        f"{found.model}, {found.age_days:.0f} days old, on {found.data}; pictures: {found.same}; drift: {found.drift}; "
        f"new accepted pictures: {new} of {found.rows:,}.",
    )
