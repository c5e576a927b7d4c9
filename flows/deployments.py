"""What `darkroom up` registers with Prefect: the work pool with its queues, the trainer's limit and the deployments.

All of it is safe to repeat, and keeps what people set on Prefect's page: schedules, parameters, overlap, pauses. So
Prefect's server is where a schedule lives; `infra/prefect.yaml` says how a new deployment begins.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    GlobalConcurrencyLimitCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object
from prefect.workers.process import ProcessWorker

from darkroom.recipe import find, load
from darkroom.settings import Settings
from tasks.slot import limit_name

TAG = "darkroom"  # what every deployment of ours carries
QUEUES = ("people", "train", "house")  # in this order: who waits for an answer, training, the rest
RECIPE = "recipe"  # the parameter of which there is a deployment for each


@dataclass(frozen=True)
class Spec:
    """A deployment as it begins."""

    name: str
    entrypoint: str
    parameters: dict[str, Any]
    content: dict[str, Any]  # its entry of prefect.yaml

    @property
    def flow(self) -> str:
        """The flow's name, which is that of its module."""
        return self.entrypoint.split(".")[1]

    @property
    def full_name(self) -> str:
        """As Prefect names it: FLOW/NAME."""
        return f"{self.flow}/{self.name}"


def register(settings: Settings, recipes: Sequence[str], alone: bool) -> list[Spec]:
    """Make or refresh everything; ``recipes`` are deployed beside those that are deployed already.

    ``alone``: the server's database is SQLite, so that runs go one at a time (:func:`services.alone`).
    """
    from . import automations  # which looks here for the deployments that it names

    with get_client(sync_client=True) as client:
        make_pool(client, settings, alone)
        make_limit(client, settings)
        wanted = deployed(client) | dict(reference(recipe) for recipe in recipes)
        found = list(specs(wanted or {shipped_recipe(): shipped_recipe()}))
        for spec in found:
            deploy(client, spec, settings)
        automations.apply(client, settings, alone)
    return found


def reference(recipe: str) -> tuple[str, str]:
    """A recipe's name, and how a worker in any folder finds it: by a shipped recipe's name, its path or address."""
    plan, where = load(recipe), find(recipe).where
    if where.startswith(("http://", "https://")):
        return plan.name, where
    path = Path(where).resolve()
    root = Path(__file__).resolve().parents[1]
    shipped = path.parent in (root / "recipes", root / "darkroom" / "_recipes")
    return plan.name, path.stem if shipped else str(path)


def specs(recipes: dict[str, str], file: Path | None = None) -> Iterator[Spec]:
    """The deployments of prefect.yaml, those of a recipe once for each; flows that are not installed are left out."""
    for entry in yaml.safe_load((file or infra("prefect.yaml")).read_text("utf-8"))["deployments"]:
        module = entry["entrypoint"].rpartition(".")[0]
        if importlib.util.find_spec(module) is None:
            continue
        parameters = entry.get("parameters") or {}
        if RECIPE not in parameters:
            yield Spec(entry["name"], entry["entrypoint"], parameters, entry)
            continue
        for name, where in recipes.items():
            yield Spec(name, entry["entrypoint"], {**parameters, RECIPE: where}, entry)


def shipped_recipe() -> str:
    """The recipe that prefect.yaml names."""
    entries = yaml.safe_load(infra("prefect.yaml").read_text("utf-8"))["deployments"]
    return next(str(entry["parameters"][RECIPE]) for entry in entries if RECIPE in (entry.get("parameters") or {}))


def infra(name: str) -> Path:
    """A file of infra/, of the checkout or of the installed package."""
    root = Path(__file__).resolve().parents[1]
    return next(path for path in (root / "infra" / name, root / "darkroom" / "_infra" / name) if path.is_file())


def deployed(client: SyncPrefectClient) -> dict[str, str]:
    """The recipes that are deployed: name and reference."""
    return {one.name: str(one.parameters[RECIPE]) for one in ours(client) if one.parameters.get(RECIPE)}


def ours(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """All deployments of darkroom on this server."""
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=tagged, limit=200, offset=len(found)):
        found += page
    return found


def make_pool(client: SyncPrefectClient, settings: Settings, alone: bool) -> None:
    """The work pool and its queues."""
    limit = 1 if alone else None
    try:
        pool = client.read_work_pool(settings.pool)
    except ObjectNotFound:
        made = WorkPoolCreate(
            name=settings.pool,
            type="process",
            description="Runs of darkroom's deployments. `darkroom up` starts a worker.",
            base_job_template=ProcessWorker.get_default_base_job_template(),
            concurrency_limit=limit,
        )
        client.create_work_pool(made)
    else:
        if limit is not None and pool.concurrency_limit != limit:
            client.update_work_pool(settings.pool, WorkPoolUpdate(concurrency_limit=limit))
    for priority, queue in enumerate(QUEUES, start=1):
        try:
            client.read_work_queue_by_name(queue, settings.pool)
        except ObjectNotFound:
            client.create_work_queue(queue, priority=priority, work_pool_name=settings.pool)


def make_limit(client: SyncPrefectClient, settings: Settings) -> None:
    """One training at a time on this machine's device, whoever starts it."""
    name = limit_name(settings)
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))


def deploy(client: SyncPrefectClient, spec: Spec, settings: Settings) -> None:
    """Make a deployment, or refresh what the code decides of one."""
    flow = import_object(spec.entrypoint)
    current: dict[str, Any] = {
        "entrypoint": spec.entrypoint,
        "description": spec.content.get("description"),
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
        "pull_steps": [],
    }
    try:
        known = client.read_deployment_by_name(spec.full_name)
    except ObjectNotFound:
        limit = spec.content.get("concurrency_limit") or {}
        strategy = limit.get("collision_strategy")
        client.create_deployment(
            flow_id=client.create_flow_from_name(flow.name),
            name=spec.name,
            parameters=spec.parameters,
            tags=spec.content["tags"],
            schedules=[schedule(one) for one in spec.content.get("schedules") or []],
            concurrency_limit=limit.get("limit"),
            concurrency_options=ConcurrencyOptions(collision_strategy=strategy) if strategy else None,
            enforce_parameter_schema=True,
            work_pool_name=settings.pool,
            work_queue_name=spec.content["work_pool"]["work_queue_name"],
            **current,
        )
        return
    parameters = {**known.parameters, **{k: v for k, v in spec.parameters.items() if k == RECIPE}}
    client.update_deployment(known.id, DeploymentUpdate(parameters=parameters, **current))


def schedule(entry: dict[str, Any]) -> DeploymentScheduleCreate:
    """A schedule as prefect.yaml writes it."""
    made: SCHEDULE_TYPES
    if "cron" in entry:
        made = CronSchedule(cron=entry["cron"], timezone=entry.get("timezone"))
    else:
        made = IntervalSchedule.model_validate(
            {key: entry[key] for key in ("interval", "anchor_date", "timezone") if key in entry}
        )
    return DeploymentScheduleCreate(schedule=made, active=entry.get("active", True), slug=entry["slug"])
