"""`darkroom promote`, `refuse` and `rollback`: who is the champion, decided on the command line."""

import argparse
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


def _promote(options: argparse.Namespace) -> int:
    from darkroom.promotion import promote
    from darkroom.quality.releases import user

    settings, registry, store = _places(options.model)
    return _told(settings, promote(registry, options.model, options.version, user(), options.why, store))


def _refuse(options: argparse.Namespace) -> int:
    from darkroom.promotion import refuse
    from darkroom.quality.releases import user

    settings, registry, store = _places(options.model)
    return _told(settings, refuse(registry, options.model, options.version, user(), options.why, store))


def _rollback(options: argparse.Namespace) -> int:
    from darkroom.promotion import rollback
    from darkroom.quality.releases import user

    settings, registry, store = _places(options.model)
    return _told(settings, rollback(registry, options.model, user(), options.why, store))


def _places(model: str) -> "tuple[Settings, Registry, Store]":
    from darkroom.settings import Settings
    from darkroom.store import Store
    from darkroom.tracking import open_registry

    settings = Settings()
    return settings, open_registry(settings, model), Store(settings.store, settings.reserve_bytes)


def _told(settings: "Settings", done: "Done") -> int:
    """Print what was done, and tell Prefect where one runs."""
    print(done.words, flush=True)
    announce_where_prefect_runs(settings, done.moves)
    return 0


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
