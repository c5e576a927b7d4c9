"""`darkroom schedule`: when the flows of a recipe run by themselves. Prefect's server keeps it, its page shows it."""

import argparse
import os
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.client.schemas.schedules import SCHEDULE_TYPES

FLOWS = ("retrain", "quality", "monitor", "prune")
OVERLAP = {"queue": "ENQUEUE", "refuse": "CANCEL_NEW"}
UNITS = {"m": 60, "h": 3600, "d": 86400}
EPILOG = """Without options, the schedules of infra/prefect.yaml are turned on for the recipe: retrain every night,
quality every hour, monitor every week. They run while `darkroom up` does; what was missed is made up for afterwards."""


@dataclass(frozen=True)
class Line:
    """One schedule, as it is listed."""

    deployment: str
    when: str
    timezone: str
    on: bool
    overlap: str
    next: str | None


def add_parser(commands: Any) -> None:
    """Register `schedule`."""
    made = commands.add_parser(
        "schedule",
        help="say when a recipe is retrained, checked and monitored by itself",
        description="Say when a recipe is retrained, checked and monitored by itself; without a name, list it all.",
        epilog=EPILOG,
    )
    made.set_defaults(command=_schedule)
    made.add_argument("name", metavar="RECIPE", nargs="?", help="a recipe, or 'prune'")
    made.add_argument("--flow", choices=FLOWS, help="this one alone")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--cron", metavar="'0 2 * * *'", help="minute, hour, day, month, weekday (of retrain)")
    what.add_argument("--every", metavar="6h", type=_interval, help="an interval: 30m, 6h, 7d (of retrain)")
    what.add_argument("--off", action="store_true", help="turn off, and keep when it was")
    what.add_argument("--remove", action="store_true", help="take the recipe's deployments away")
    made.add_argument("--timezone", metavar="ZONE", help="such as Europe/Berlin (this machine's)")
    made.add_argument("--overlap", choices=tuple(OVERLAP), help="what becomes of a run that comes while one goes on")
    made.add_argument("--json", action="store_true", help="print the list as one JSON object")


def _schedule(options: argparse.Namespace) -> int:
    import json

    from darkroom.settings import Settings

    from . import servers, services

    settings = Settings()
    alone = services.alone(settings)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    with servers.prefect_api(settings):
        from prefect import get_client

        from . import automations
        from .deployments import ours, register

        with get_client(sync_client=True) as client:
            if options.name:
                known = options.name in [one.name for one in ours(client)]
                if not (known or options.off or options.remove):
                    register(settings, [] if options.name == "prune" else [options.name], alone)
                change(client, options)
                if options.remove:
                    automations.apply(client, settings, alone)  # some of which were the recipe's
            lines = listed(client)
    if options.json:
        print(json.dumps({"schedules": [asdict(line) for line in lines]}))
        return 0
    for line in lines:
        on = f"on, next {line.next}" if line.on and line.next else "on" if line.on else "off"
        print(f"{line.deployment:<24} {line.when:<16} {line.timezone:<18} {on}")
    if not lines:
        print("nothing is deployed: `darkroom up` deploys, and `darkroom schedule RECIPE` turns schedules on")
    return 0


def change(client: "SyncPrefectClient", options: argparse.Namespace) -> None:
    """Do as the command line says with the deployments that it names."""
    from darkroom.errors import RecipeError

    found = _named(client, options.name, options.flow)
    if options.cron or options.every:
        flow = options.flow or ("prune" if options.name == "prune" else "retrain")
        found = [one for one in found if _flow(one) == flow]
    if not found:
        raise RecipeError(
            f"there is no deployment of {options.name!r}" + (f" for {options.flow}" if options.flow else "")
        )
    for deployment in found:
        if options.remove:
            client.delete_deployment(deployment.id)
            continue
        if options.overlap:
            _set_overlap(client, deployment, options.overlap)
        if options.off:
            _turn(client, deployment, on=False)
        elif options.cron or options.every:
            _replace(client, deployment, _made(options))
        elif not options.overlap:
            _turn(client, deployment, on=True, zone=options.timezone)


def listed(client: "SyncPrefectClient") -> list[Line]:
    """Every schedule of ours, by deployment."""
    from .deployments import ours

    lines = []
    for deployment in sorted(ours(client), key=lambda one: one.name):
        strategy = deployment.concurrency_options.collision_strategy.value if deployment.concurrency_options else None
        overlap = next((word for word, value in OVERLAP.items() if value == strategy), "allow")
        for one in deployment.schedules:
            on = one.active and not deployment.paused
            upcoming = _next(client, deployment) if on else None
            zone = str(getattr(one.schedule, "timezone", None) or "UTC")
            name = f"{_flow(deployment)}/{deployment.name}"
            lines.append(Line(name, words(one.schedule), zone, on, overlap, upcoming))
    return sorted(lines, key=lambda line: line.deployment)


def words(schedule: "SCHEDULE_TYPES") -> str:
    """A schedule as the command line writes it."""
    if cron := getattr(schedule, "cron", None):
        return str(cron)
    if interval := getattr(schedule, "interval", None):
        seconds = int(interval.total_seconds())
        unit, size = next((u, s) for u, s in reversed(UNITS.items()) if seconds % s == 0 or s == UNITS["m"])
        return f"every {seconds / size:g}{unit}"
    return str(getattr(schedule, "rrule", schedule))


def local_zone() -> str:
    """The name of this machine's time zone; UTC where it has none."""
    if zone := os.environ.get("TZ", "").lstrip(":"):
        return zone
    parts = Path("/etc/localtime").resolve().as_posix().partition("/zoneinfo/")[2]
    return parts if parts and parts not in ("Etc/UTC", "localtime") else "UTC"


def _named(client: "SyncPrefectClient", name: str, flow: str | None) -> "list[DeploymentResponse]":
    from darkroom.errors import RecipeError

    from .deployments import RECIPE, ours, reference

    known = [one for one in ours(client) if RECIPE in one.parameters or one.name == "prune"]
    if name not in [one.name for one in known]:
        try:
            name = reference(name)[0]
        except RecipeError:
            raise RecipeError(f"{name!r} is neither deployed nor a recipe; `darkroom schedule` lists") from None
    return [one for one in known if one.name == name and flow in (None, _flow(one))]


def _flow(deployment: "DeploymentResponse") -> str:
    """The flow's name, which is that of its module."""
    return str(deployment.entrypoint).split(".")[1]


def _turn(client: "SyncPrefectClient", deployment: "DeploymentResponse", on: bool, zone: str | None = None) -> None:
    """Turn a deployment's schedules on or off; one that is as it was shipped gets this machine's time zone."""
    shipped = _shipped(deployment)
    for one in deployment.schedules:
        moved_to = zone or (local_zone() if on and one.schedule in shipped else None)
        moved = one.schedule.model_copy(update={"timezone": moved_to}) if moved_to else one.schedule
        client.update_deployment_schedule(deployment.id, one.id, active=on, schedule=moved)
    if on and deployment.paused:
        client.resume_deployment(deployment.id)


def _shipped(deployment: "DeploymentResponse") -> "list[SCHEDULE_TYPES]":
    """The schedules with which such a deployment begins."""
    from .deployments import schedule, specs

    entries = [spec.content for spec in specs({"": ""}) if spec.entrypoint == deployment.entrypoint]
    return [schedule(one).schedule for entry in entries for one in entry.get("schedules") or []]


def _replace(client: "SyncPrefectClient", deployment: "DeploymentResponse", schedule: "SCHEDULE_TYPES") -> None:
    """Set the one schedule of a deployment; further ones, made on Prefect's page, stay."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    if deployment.schedules:
        first = deployment.schedules[0]
        client.update_deployment_schedule(deployment.id, first.id, active=True, schedule=schedule)
    else:
        new = DeploymentScheduleCreate(schedule=schedule, active=True, slug="own")
        client.create_deployment_schedules(deployment.id, [new])
    if deployment.paused:
        client.resume_deployment(deployment.id)


def _made(options: argparse.Namespace) -> "SCHEDULE_TYPES":
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from pydantic import ValidationError

    from darkroom.errors import RecipeError

    zone = options.timezone or local_zone()
    try:
        if options.cron:
            return CronSchedule(cron=options.cron, timezone=zone)
        return IntervalSchedule.model_validate({"interval": options.every, "timezone": zone})
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"this is no schedule: {said}") from None


def _set_overlap(client: "SyncPrefectClient", deployment: "DeploymentResponse", overlap: str) -> None:
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.client.schemas.objects import ConcurrencyOptions

    strategy: Any = OVERLAP[overlap]
    options = ConcurrencyOptions(collision_strategy=strategy)
    client.update_deployment(deployment.id, DeploymentUpdate(concurrency_limit=1, concurrency_options=options))


def _next(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> str | None:
    """When the next run is due, once Prefect's scheduler has made it."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment.id]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
    )
    runs = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=1)
    moment: datetime | None = runs[0].expected_start_time if runs else None
    return moment.strftime("%Y-%m-%d %H:%M UTC") if moment else None


def _interval(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval: write 30m, 6h or 7d")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])
