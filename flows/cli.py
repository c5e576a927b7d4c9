"""The command line. It imports what a command needs when that command runs, so that ``--help`` answers at once."""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from darkroom.artifacts import QualityReport, Shards
    from darkroom.recipe import Overrides, Recipe
    from darkroom.settings import Settings
    from darkroom.store import Store

EPILOG = """exit status: 0 done (also when the champion stays); 1 an unexpected failure; 2 a mistake in the recipe or on
the command line; 3 the data gate refused; 4 an outside service stayed unreachable; 5 stopped for a reason that is
explained (disk, memory, divergence); 130 interrupted, the same command resumes"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    _quiet_libraries()
    signal.signal(signal.SIGTERM, _interrupt)  # a polite end from outside is Ctrl-C
    from darkroom.errors import DarkroomError

    try:
        status: int = options.command(options)
        return status
    except DarkroomError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return error.exit_status
    except _lost_connection() as error:
        words = f"the connection to Prefect's API was lost ({error}); what was made is kept: run the same command again"
        print(f"darkroom: {words}", file=sys.stderr, flush=True)
        os._exit(4)  # Prefect's threads would go on trying to tell a server that is gone, for minutes
    except KeyboardInterrupt:
        print("darkroom: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except OSError as error:
        import errno

        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"darkroom: the disk is full ({error}); make room and run the same command again", file=sys.stderr)
        return 5


def _lost_connection() -> tuple[type[Exception], ...]:
    """What Prefect's client raises when its server is gone; nothing where it was never imported."""
    httpx = sys.modules.get("httpx")
    return (httpx.TransportError,) if httpx else ()


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    root = argparse.ArgumentParser(
        prog="darkroom",
        description="Retrain diffusion models; a new one replaces the old one only when it is measurably better.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from darkroom import __version__

    root.add_argument("--version", action="version", version=f"darkroom {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, function: Any, help_: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help_, description=help_[:1].upper() + help_[1:] + ".")
        made.set_defaults(command=function)
        return made

    run = command("run", _run, "run a recipe, from its pictures to a registered model")
    check = command("check", _check, "collect and check only; exit status 3 when the data gate refuses")
    estimate = command("estimate", _estimate, "say what a run will take: duration, memory, disk and cost")
    estimate.add_argument(
        "--synthetic", action="store_true", help="measure on pictures of noise; nothing is collected or prepared"
    )
    for one in (run, check, estimate):
        more = "; or models:/NAME/3 (NAME@champion, NAME/3): that version again" if one is run else ""
        help_ = f"a name in recipes/, a path to a .toml file, or an address{more}"
        one.add_argument("recipe", metavar="RECIPE", help=help_)
        one.add_argument(
            "--set", metavar="FIELD=VALUE", action="append", default=[], help="override a field of the recipe"
        )
        one.add_argument("--json", action="store_true", help="print the outcome as one JSON object, on the last line")
    run.add_argument(
        "--fresh", choices=("check", "preprocess", "train", "evaluate"), help="build anew from this stage on"
    )

    new = command("new", _new, "write a recipe for a folder of pictures")
    new.add_argument("name", metavar="NAME", help="the name of the recipe, and of the model that it will train")
    new.add_argument("--images", metavar="FOLDER", type=Path, required=True, help="the pictures")
    new.add_argument("--out", metavar="FILE", type=Path, help="the recipe's file (recipes/NAME.toml)")

    from . import champions, data, export, house, models, notices, schedule

    data.add_parsers(commands)
    models.add_parsers(commands)
    export.add_parser(commands)
    schedule.add_parser(commands)
    house.add_parsers(commands)
    notices.add_parser(commands)

    run.add_argument("--data", metavar="VERSION", help="go back to a version of the data (see `darkroom data list`)")

    generate = command("generate", _generate, "draw pictures from a registered model")
    generate.add_argument("model", metavar="MODEL", help="name@champion, name@challenger or name/3")
    generate.add_argument("prompt", metavar="PROMPT", help="what to draw")
    generate.add_argument("--count", type=_at_least(1), default=1, help="number of pictures (1)")
    generate.add_argument("--seed", type=_at_least(0), default=0, help="seed of the noise (0)")
    generate.add_argument("--out", type=Path, default=Path("samples"), help="a new or empty folder (samples)")
    generate.add_argument("--steps", type=_at_least(1), default=0, help="sampling steps (the model's own)")
    generate.add_argument("--guidance", type=float, default=-1.0, help="classifier-free guidance (the model's own)")

    champions.add_parsers(commands)

    for name, function, help_ in (
        ("up", _up, "start the dashboards, a worker, and the deployments with their schedules"),
        ("down", _down, "stop what `darkroom up` started"),
        ("status", _status, "say what runs, and where"),
        ("doctor", _doctor, "say what is installed, reachable and missing here"),
    ):
        command(name, function, help_)
    commands.choices["up"].add_argument(
        "--recipe", metavar="RECIPE", action="append", default=[], help="deploy this recipe, too; may be repeated"
    )
    return root


def _run(options: argparse.Namespace) -> int:
    from darkroom.errors import DataGateRefused
    from darkroom.outcome import refused
    from darkroom.recipe import load
    from darkroom.references import is_reference
    from darkroom.settings import Settings
    from flows import models, servers

    if is_reference(options.recipe):
        _quiet_prefect()
        made = models.run_again(options)
        print(json.dumps(made, ensure_ascii=False) if options.json else models.summary(made), flush=True)
        return 0
    overrides = _overrides(options)
    plan = load(options.recipe, overrides)  # the cheapest mistakes first, before any server starts
    _preflight(plan)
    settings = Settings()
    _quiet_prefect()
    with servers.start(settings) as server:  # it starts while we import
        from prefect import tags

        from flows.retrain import retrain

        if server.starting and not (settings.store / "checked").exists():
            # A first run will need it, and the import takes as long as the server takes to answer.
            from darkroom.quality.checkpoint import preload

            preload()
        server.wait()
        try:
            with tags("darkroom"):  # by which automations and the supervisor know a run of ours
                result = retrain(options.recipe, overrides)
        except DataGateRefused as error:
            if options.json:
                print(json.dumps(refused(plan, str(error))))
            raise
        # Said before our server ends, which may take seconds: what follows cannot lose it.
        print(json.dumps(result, ensure_ascii=False) if options.json else _summary(result, settings), flush=True)
    return 0


def _preflight(plan: "Recipe") -> None:
    """What is cheap and may fail: the weights that the recipe names are there, those that judge included."""
    from darkroom.evaluation.features import clip_identity, identity
    from darkroom.evaluation.verdict import settled
    from darkroom.training.packages import available
    from darkroom.training.parts import look_early

    available(plan.train)
    look_early(plan)
    identity(plan.evaluate.features, plan.evaluate.sha256)
    clip_identity(plan.evaluate.clip, plan.evaluate.clip_sha256)
    settled(plan.evaluate, plan.gate)


def _check(options: argparse.Namespace) -> int:
    from darkroom.collect.manifest import collect
    from darkroom.errors import DataGateRefused
    from darkroom.outcome import data_of, refused
    from darkroom.quality.check import gate
    from darkroom.recipe import load
    from darkroom.settings import Settings
    from darkroom.store import Store

    plan = load(options.recipe, _overrides(options))
    settings = Settings()
    store = Store(settings.store, settings.reserve_bytes)

    def show(report: "QualityReport") -> None:
        if not options.json:
            _print_report(report)

    try:
        with store.in_use():
            manifest = collect(plan.collect, store, _counted("pictures collected"))
            told = _counted("pictures checked")
            report = gate(manifest, plan, store, workers=settings.workers, progress=told, show=show)
    except DataGateRefused as error:
        if options.json:
            print(json.dumps(refused(plan, str(error))))
        raise
    if options.json:
        found = {"recipe": plan.name, "decision": "accepted", "data": data_of(report)}
        print(json.dumps({**found, "digests": {"manifest": manifest.digest, "checked": report.digest}}))
    return 0


def _estimate(options: argparse.Namespace) -> int:
    import tempfile
    from dataclasses import asdict

    from darkroom.errors import ServiceUnavailable
    from darkroom.recipe import load
    from darkroom.settings import Settings
    from darkroom.store import Store
    from darkroom.tracking import open_registry
    from darkroom.training.estimate import estimate, synthetic_shards
    from darkroom.training.pace import duration
    from darkroom.training.parts import pin

    plan = load(options.recipe, _overrides(options))
    _preflight(plan)
    settings = Settings()
    store = Store(settings.store, settings.reserve_bytes)
    money: dict[str, Any] = {"price_per_hour": settings.price_per_hour, "currency": settings.currency}
    shards = None
    with store.in_use():
        if not options.synthetic:
            try:
                plan, shards = _prepared(plan, settings, store)
            except ServiceUnavailable as error:
                print(f"darkroom: {error}; measured on pictures of noise instead", file=sys.stderr)
        if shards is not None:
            champion = _has_champion(plan.name, settings)
            found = estimate(plan, shards, store, settings.device, champion=champion, **money)
    if shards is None:
        plan = pin(plan, "", open_registry(settings, plan.name), store, remember=False)
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            noise = Store(Path(folder))
            found = estimate(
                plan, synthetic_shards(plan, noise, settings.device), noise, settings.device, synthetic=True, **money
            )
    if options.json:
        print(json.dumps({"recipe": plan.name, **asdict(found), "seconds": found.seconds}))
        return 0
    lines = [
        f"{plan.name}: {duration(found.seconds)} for {found.steps:,} steps and their evaluation",
        f"  training        {duration(found.train_seconds)}",
        f"  evaluation      {duration(found.evaluate_seconds)}",
        f"  comparison      {duration(found.compare_seconds)} at most" if found.compare_seconds else "",
        f"  memory          {found.peak_bytes / 1e9:.2f} GB of {settings.device}",
        f"  disk            {found.disk_bytes / 1e9:.3f} GB",
        f"  cost            {found.cost:.2f} {found.currency}"
        if found.cost is not None
        else "  cost            unknown: set DARKROOM_PRICE_PER_HOUR",
        f"  measured on     {found.measured_on}",
    ]
    print("\n".join(line for line in lines if line))
    return 0


def _has_champion(name: str, settings: "Settings") -> bool:
    """Whether there is one to compare with, as far as an MLflow in reach says."""
    from darkroom.errors import ServiceUnavailable
    from darkroom.tracking import open_registry

    try:
        return open_registry(settings, name).with_alias(name, "champion") is not None
    except ServiceUnavailable:
        return False


def _prepared(plan: "Recipe", settings: "Settings", store: "Store") -> "tuple[Recipe, Shards]":
    """The recipe with the base that it means today, and its shards: what the store lacks of them, the run reuses."""
    from darkroom.collect.manifest import collect
    from darkroom.preprocess.shards import preprocess
    from darkroom.quality.check import gate
    from darkroom.tracking import open_registry
    from darkroom.training.parts import latents_of, pin

    manifest = collect(plan.collect, store, _counted("pictures collected"))
    plan = pin(plan, manifest.digest, open_registry(settings, plan.name), store, remember=False)
    checked = gate(manifest, plan, store, workers=settings.workers, progress=_counted("pictures checked"))
    told = _counted("pictures prepared")
    latents = latents_of(plan)
    return plan, preprocess(checked, plan.preprocess, latents, plan.train.threads, store, settings.device, told)


def _new(options: argparse.Namespace) -> int:
    from darkroom.collect.suggest import suggest
    from darkroom.errors import RecipeError

    target = options.out or Path("recipes") / f"{options.name}.toml"
    text = suggest(options.name, options.images.absolute())
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError(f"{target} is there already: name another file with --out, or remove it") from None
    print(f"{target}\nnext: darkroom check {target}")
    return 0


def _print_report(report: "QualityReport") -> None:
    from darkroom.quality.check import summary

    found = summary(report)
    print(f"{found['accepted']:,} of {found['rows']:,} pictures accepted, {found['quarantined']:,} in quarantine")
    for title, kinds in (("refused", found["reasons"]), ("remarked on", found["flags"])):
        for kind, count in kinds.items():
            print(f"  {count:>7,}  {title}: {kind}")
    for finding in found["findings"]:
        if finding["severity"] != "info":
            print(f"  {finding['severity']}: {finding['rule']} ({finding['observed']})")
    print(f"review          {report.path / found['review']}")
    print(f"quality report  {report.path / found['docs']}")


def _counted(what: str) -> Any:
    """Progress on a terminal, at most every two seconds; silence elsewhere."""
    import time

    last = [time.monotonic()]

    def tell(done: int, total: int | None = None) -> None:
        if sys.stderr.isatty() and time.monotonic() - last[0] > 2:
            last[0] = time.monotonic()
            print(f"{what}: {done:,}" + (f" of {total:,}" if total else ""), file=sys.stderr)

    return tell


def _generate(options: argparse.Namespace) -> int:
    from darkroom.generate import generate
    from darkroom.settings import Settings
    from darkroom.tracking import open_registry

    files = generate(
        open_registry(Settings(), options.model.split("@")[0].split("/")[0]),
        options.model,
        options.prompt,
        count=options.count,
        seed=options.seed,
        out=options.out,
        steps=options.steps,
        guidance=options.guidance,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(files[-1])
    return 0


def _up(options: argparse.Namespace) -> int:
    from darkroom.settings import Settings
    from flows.up import up

    _quiet_prefect()
    up(Settings(), options.recipe)
    return _status(options)


def _down(options: argparse.Namespace) -> int:
    from darkroom.settings import Settings
    from flows import servers

    _print_services(servers.down(Settings()))
    return 0


def _status(options: argparse.Namespace) -> int:
    from darkroom.settings import Settings
    from flows.overview import overview

    _quiet_prefect()
    for row in overview(Settings()):
        print(f"{row.name:<12} {row.state:<15} {row.detail}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from darkroom.settings import Settings
    from flows.doctor import doctor

    lines, healthy = doctor(Settings())
    for line in lines:
        print(f"{line.state:<8} {line.sentence}")
        if line.remedy:
            print(f"{'':<8} -> {line.remedy}")
    return 0 if healthy else 1


def _overrides(options: argparse.Namespace) -> "Overrides":
    from darkroom.recipe import Overrides, read_assignments

    named = {name: getattr(options, name, None) for name in ("fresh", "data")}
    return Overrides(fields=read_assignments(options.set), **named)


def _print_services(services: Sequence[Any]) -> None:
    for service in services:
        print(f"{service.name:<10} {service.state:<12} {service.url}")


def _summary(result: dict[str, Any], settings: "Settings") -> str:
    """What was made and where to look."""
    model, data, paths = result["model"], result["data"], result["paths"]
    shown = [f"  {name:<26} {value:.4g}" for name, value in sorted(result["metrics"].items())]
    here = "darkroom" if shutil.which("darkroom") else os.path.relpath(sys.argv[0])
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    lines = [
        "",
        f"{result['recipe']}: {result['decision'].replace('_', ' ')} - {result['reason']}",
        f"  data            {data['rows']:,} rows, {data['quarantined']:,} in quarantine, "
        f"{data['train']:,} to train on, {data['validation']:,} to validate",
        *shown,
        f"  seconds         {seconds}",
        f"  reused          {', '.join(result['reused']) or 'nothing'}",
        *(
            [f"  estimate        said {said['estimated_seconds']:.0f} s, took {said['took_seconds']:.0f} s"]
            if (said := result["estimate"])
            else []
        ),
        "",
        f"sample grid       {paths['samples']}",
        f"report            {paths['report']}",
        f"review            {paths['review']}",
        f"quality report    {paths['data_docs']}",
        f"pipeline          {paths['pipeline']}",
        f"MLflow version    {model['uri']}",
        f"Prefect run       {result['run']['name']}, {result['run']['url']}",
        f'pictures          {here} generate {model["name"]}/{model["version"]} "a prompt" --count 16 --out FOLDER',
        f"dashboards        {here} up   (Prefect :{settings.prefect_port}, MLflow :{settings.mlflow_port}, "
        f"reports :{settings.reports_port})",
    ]
    if result["decision"] == "challenger":
        lines.append(f"promote           {here} promote {model['name']} {model['version']}")
    return "\n".join(lines)


def _at_least(minimum: int) -> Any:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is below {minimum}")
        return value

    return number


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _quiet_libraries() -> None:
    """Progress bars and advice of libraries, which would bury what darkroom says. All may be set otherwise."""
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        os.environ.setdefault(name, value)


def _quiet_prefect() -> None:
    os.environ.setdefault("PREFECT_LOGGING_COLORS", "false" if not sys.stderr.isatty() else "true")


if __name__ == "__main__":
    sys.exit(main())
