"""`darkroom promote`, `refuse`, `rollback` and `monitor`: the commands on the champion."""

import argparse
import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from darkroom.champion import Moved
    from darkroom.promotion import Done
    from darkroom.registry import Registry
    from darkroom.settings import Settings
    from darkroom.store import Store


def add_parsers(commands: Any) -> None:
    """Register the commands on the champion."""
    for name, function, help_ in (
        ("promote", _promote, "make a version the champion by hand, after it drew a picture"),
        ("refuse", _refuse, "take a version off the list of those that wait to become champion"),
        ("rollback", _rollback, "make the champion before this one champion again; once more goes back one more"),
    ):
        made = commands.add_parser(name, help=help_, description=help_[:1].upper() + help_[1:] + ".")
        made.set_defaults(command=function)
        made.add_argument("model", metavar="MODEL", help="the model's name")
        if function is not _rollback:
            made.add_argument("version", metavar="VERSION", help="the version's number, or 'challenger'")
        made.add_argument("--why", metavar="TEXT", default="", help="the reason, for the model's history")
    monitor = commands.add_parser(
        "monitor",
        help="look at the champion: is it still what it was, and is it time to train again",
        description="Draw from the champion again, measure it on the newest accepted data, and say when retraining is "
        "due, and why. Exit status 0 whatever it found: the outcome says it.",
    )
    monitor.set_defaults(command=_monitor)
    monitor.add_argument("recipe", metavar="RECIPE", help="a name in recipes/, a path to a .toml file, or an address")
    monitor.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="override a field")
    monitor.add_argument("--json", action="store_true", help="print the outcome as one JSON object, on the last line")


def _promote(options: argparse.Namespace) -> int:
    from darkroom.promotion import promote
    from darkroom.quality.releases import user

    settings, registry, store = _places(options.model)
    return _told(settings, registry, promote(registry, options.model, options.version, user(), options.why, store))


def _refuse(options: argparse.Namespace) -> int:
    from darkroom.promotion import refuse
    from darkroom.quality.releases import user

    settings, registry, store = _places(options.model)
    return _told(settings, registry, refuse(registry, options.model, options.version, user(), options.why, store))


def _rollback(options: argparse.Namespace) -> int:
    from darkroom.promotion import rollback
    from darkroom.quality.releases import user

    settings, registry, store = _places(options.model)
    return _told(settings, registry, rollback(registry, options.model, user(), options.why, store))


def _monitor(options: argparse.Namespace) -> int:
    import os
    import sys

    from darkroom.recipe import Overrides, load, read_assignments
    from darkroom.settings import Settings

    from . import servers

    overrides = Overrides(fields=read_assignments(options.set))
    load(options.recipe, overrides)  # the cheapest mistakes first, before any server starts
    os.environ.setdefault("PREFECT_LOGGING_COLORS", "true" if sys.stderr.isatty() else "false")
    with servers.start(Settings()) as server:
        from .monitor import monitor

        server.wait()
        found: dict[str, Any] = monitor(options.recipe, overrides)
        print(json.dumps(found, ensure_ascii=False) if options.json else _monitored(found), flush=True)
    return 0


def _monitored(found: dict[str, Any]) -> str:
    """What the monitor found, for a terminal."""
    new = "unknown" if found["new_rows"] is None else f"{found['new_rows']:,}"
    lines = [
        "",
        f"{found['model']['uri']}: {found['decision'].replace('_', ' ')} - {found['reason']}",
        f"  pictures        {found['same']}",
        *(
            f"  {one['measure']:<26} {one['now']:.4g}, at registration {one['then']:.4g}: {one['worse']:+.1%} worse"
            for one in found["watched"]
        ),
        f"  data            {found['rows']:,} accepted pictures, {new} of them new since its training, {found['data']}",
        f"  drift           {found['drift']}",
        *(f"                  {sentence}" for sentence in found["drift_words"]),
        f"  age             {found['age_days']:.1f} days",
        f"Prefect run       {found['run']['name']}, {found['run']['url']}",
    ]
    return "\n".join(lines)


def _places(model: str) -> "tuple[Settings, Registry, Store]":
    from darkroom.settings import Settings
    from darkroom.store import Store
    from darkroom.tracking import open_registry

    settings = Settings()
    return settings, open_registry(settings, model), Store(settings.store, settings.reserve_bytes)


def _told(settings: "Settings", registry: "Registry", done: "Done") -> int:
    """Print what was done; tell the model's history, and Prefect where one runs."""
    from darkroom.report import chronicle

    print(done.words, flush=True)
    chronicle.tell(registry, registry.experiment, settings)
    announce_where_prefect_runs(settings, done.moves)
    return 0


def notice(settings: "Settings", registry: "Registry", reference: str) -> None:
    """Record a move on MLflow's page since the last look, before somebody reads the history; reading needs no more."""
    from darkroom import champion
    from darkroom.errors import ServiceUnavailable
    from darkroom.references import model_of
    from darkroom.store import Store

    store = Store(settings.store, settings.reserve_bytes)
    try:
        moved = champion.notice(registry, model_of(reference), store)
    except ServiceUnavailable as error:  # as where this user may read and not write
        logging.getLogger("darkroom").warning("whether the champion was moved on MLflow's page is not noted: %s", error)
    else:
        announce_where_prefect_runs(settings, [moved] if moved else [])


def announce_where_prefect_runs(settings: "Settings", moves: "Sequence[Moved]") -> None:
    """Emit the events of these moves, unless no Prefect server is configured or up; one that is away is no failure."""
    from darkroom.errors import ServiceUnavailable

    from . import servers

    if not moves or servers.choose(settings)[1] == "own":
        return
    try:
        with servers.start(settings) as server:
            server.wait()
            from tasks.events import announce_moves

            announce_moves(moves)
            servers.hand_over()
    except ServiceUnavailable as error:
        logging.getLogger("darkroom").warning("the move is made, and automations are not told of it: %s", error)
