"""`darkroom prune`: the command that keeps house."""

import argparse
import json
from typing import Any


def add_parsers(commands: Any) -> None:
    """Register `prune`."""
    prune = commands.add_parser(
        "prune",
        help="free the disk of what nobody needs any more",
        description="Free the disk of what nobody needs any more. Kept is what the champion, the challenger and the "
        "newest versions of each model, every accepted version of the data and unfinished runs need.",
    )
    prune.set_defaults(command=_prune)
    prune.add_argument("--dry-run", action="store_true", help="say what would go; take nothing")
    prune.add_argument(
        "--keep", metavar="N", type=_number, default=5, help="versions of each model beside those with an alias (5)"
    )
    prune.add_argument("--json", action="store_true", help="print what was done as one JSON object, on the last line")


def _prune(options: argparse.Namespace) -> int:
    from darkroom.settings import Settings

    from . import servers

    with servers.start(Settings()) as server:
        from .prune import prune

        server.wait()
        found = prune(options.dry_run, options.keep, wait=False)
    lines = found.pop("lines")
    print(json.dumps(found) if options.json else "\n".join(lines), flush=True)
    return 0


def _number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of versions")
    return int(text)
