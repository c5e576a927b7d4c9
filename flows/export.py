"""``darkroom export``: the checked data of a recipe, written for other trainers."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command and its options, below ``commands`` (what ``add_subparsers`` gives)."""
    says = "write the checked pictures for other trainers: imagefolder, kohya or WebDataset"
    parser: argparse.ArgumentParser = commands.add_parser("export", help=says, description=says.capitalize() + ".")
    parser.add_argument("recipe", metavar="RECIPE", help="a name in recipes/, a path to a .toml file, or an address")
    parser.add_argument("--to", required=True, choices=("imagefolder", "kohya", "webdataset"), help="for whom")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--side", choices=("both", "train", "validation"), default="both", help="which side (both)")
    parser.add_argument(
        "--pictures",
        choices=("original", "working"),
        default="original",
        help="original: the files' own bytes without metadata, where they allow it; working: the working copies",
    )
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="kohya: the N of its N_class folders (1)")
    parser.add_argument("--tar-mb", type=int, default=1000, metavar="MB", help="webdataset: largest tar (1000)")
    parser.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="override a field")
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON object")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Collect and check, both from the store where nothing changed, then export. Raises as these do."""
    from darkroom.collect.manifest import collect
    from darkroom.errors import RecipeError
    from darkroom.export import export
    from darkroom.quality.check import gate
    from darkroom.recipe import Overrides, load, read_assignments
    from darkroom.settings import Settings
    from darkroom.store import Store

    for name, value in (("--repeats", options.repeats), ("--tar-mb", options.tar_mb)):
        if value < 1:
            raise RecipeError(f"{name} {value} is below 1")
    plan = load(options.recipe, Overrides(fields=read_assignments(options.set)))
    settings = Settings()
    store = Store(settings.store, settings.reserve_bytes)
    with store.in_use():
        checked = gate(collect(plan.collect, store), plan, store, workers=settings.workers)
        done = export(
            checked,
            store,
            options.to,
            options.out,
            side=options.side,
            pictures=options.pictures,
            repeats=options.repeats,
            tar_bytes=options.tar_mb * 1_000_000,
        )
    if options.json:
        print(json.dumps({"folder": str(done.folder), "sides": done.sides, "pictures": done.kinds}))
        return 0
    print("; ".join(f"{count:,} for {side}" for side, count in done.sides.items()), file=sys.stderr)
    print("; ".join(f"{count:,}: {kind}" for kind, count in done.kinds.items()), file=sys.stderr)
    print(done.folder)
    return 0
