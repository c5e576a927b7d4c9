"""`darkroom explain`, `darkroom report` and `darkroom run models:/NAME/3`: what a registered version is made of."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkroom.registry import Registry
    from darkroom.settings import Settings

MODEL = "name@champion, name@challenger, name/3 or models:/name/3; a bare name means its champion"


def add_parsers(commands: Any) -> None:
    """Register `explain` and `report`."""
    explain = commands.add_parser(
        "explain",
        help="say what a registered version was made of, from MLflow alone",
        description="Say what a registered version was made of, from MLflow alone: data, recipe, code, environment, "
        "verdict, measures and every link.",
    )
    explain.set_defaults(command=_explain)
    report = commands.add_parser(
        "report",
        help="show the page of a version, and write the page of its model's history",
        description="Show the page of a version, and write the page of its model's history.",
    )
    report.set_defaults(command=_report)
    report.add_argument("--open", action="store_true", help="open both in the browser")
    for one in (explain, report):
        one.add_argument("model", metavar="MODEL", help=MODEL)
        one.add_argument("--json", action="store_true", help="print all of it as one JSON object")


def _explain(options: argparse.Namespace) -> int:
    from darkroom.explain import explain, lines
    from darkroom.settings import Settings

    from .champions import notice
    from .data import shown

    settings = Settings()
    registry = _registry(settings, options.model)
    notice(settings, registry, options.model)
    found = explain(registry, options.model, settings)
    if options.json:
        print(json.dumps(found))
        return 0
    for line in lines(found):
        print(shown(line))
    return 0


def _report(options: argparse.Namespace) -> int:
    from darkroom import history
    from darkroom.references import full
    from darkroom.report import chronicle
    from darkroom.settings import Settings

    from .champions import notice

    settings = Settings()
    registry = _registry(settings, options.model)
    notice(settings, registry, options.model)
    version = registry.resolve(full(options.model))
    page = chronicle.page_of(registry, version, settings.root / "reports")
    whole = chronicle.write(settings.root / "reports", history.read(registry, version.model), settings)
    places = {"report": _address(settings, page), "history": _address(settings, whole)}
    if options.json:
        print(json.dumps({"model": version.uri, **places}))
    else:
        print(f"report          {places['report'] or f'of {version.uri} is not kept in MLflow'}")
        print(f"history         {places['history']}")
    if options.open:
        import webbrowser

        for place in filter(None, places.values()):
            webbrowser.open(place if "://" in place else Path(place).as_uri())
    return 0


def run_again(options: argparse.Namespace) -> dict[str, Any]:
    """Make a registered version again; returns the outcome."""
    from darkroom.again import recall
    from darkroom.errors import RecipeError
    from darkroom.settings import Settings
    from darkroom.store import Store

    from . import servers

    if options.set or options.data:
        raise RecipeError(
            f"{options.recipe} is made again as it was, so --set and --data have no place: name its recipe to change it"
        )
    if options.fresh == "check":
        raise RecipeError(
            "--fresh check: a version is made again from data that were checked; take train or preprocess"
        )
    settings = Settings()
    store = Store(settings.store, settings.reserve_bytes)
    recall(_registry(settings, options.recipe), options.recipe, store)  # what can fail is cheap: before any server
    with servers.start(settings) as server:
        from .again import again

        server.wait()
        found: dict[str, Any] = again(options.recipe, options.fresh)
    return found


def summary(result: dict[str, Any]) -> str:
    """What came of making a version again, for a terminal."""
    reproduced = "reproduced" if result["reproduced"] else "not reproduced"
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    return "\n".join(
        [
            "",
            f"{result['model']['uri']}: {reproduced} - {result['reason']}",
            f"  seconds         {seconds}",
            f"  reused          {', '.join(result['reused']) or 'nothing'}",
            f"pipeline          {result['paths']['pipeline']}",
            f"sample grid       {result['paths']['samples']}",
        ]
    )


def _registry(settings: "Settings", reference: str) -> "Registry":
    from darkroom.references import model_of
    from darkroom.tracking import open_registry

    return open_registry(settings, model_of(reference))


def _address(settings: "Settings", page: Path | None) -> str | None:
    """Where a page is looked at: under `darkroom up` while that runs, else the file itself."""
    from .services import state_of

    if page is None:
        return None
    running = state_of(settings, "reports").state == "running"
    return settings.link(page) if running else str(page)
