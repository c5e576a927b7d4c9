"""`darkroom data`: the versions of a data set, its quarantine, and requests to remove pictures."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from darkroom.artifacts import QualityReport
    from darkroom.quality.removals import Removal
    from darkroom.store import Store
    from darkroom.versions.log import Version
    from darkroom.versions.trace import Appearance, Use

EPILOG = """VERSION is a number, a name, 'latest' or the first digits of a digest. ROW_ID is the first 8 or more digits
of a row's id, as the lists show it. The data set is named by --recipe, with a recipe or the data set's own name; it can
be left out where there is only one."""


LEFT = """What is left: a row of facts and hashes, by which they and their copies are kept out; in MLflow, the pages of
review, Data Docs and reports of the runs above; and weights that were trained on them. Delete the artifacts of these
runs in MLflow and train again to be rid of those, too. Exports elsewhere, and the source itself, are yours."""


def add_parsers(commands: Any) -> None:
    """Register `data` and its own commands."""
    data = commands.add_parser(
        "data",
        help="the versions of the data, its quarantine, and removal requests",
        description="The versions of the data, its quarantine, and removal requests.",
        epilog=EPILOG,
    )
    own = data.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, function: Any, help_: str, json_: bool = True) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = own.add_parser(
            name, help=help_, description=help_[:1].upper() + help_[1:] + ".", epilog=EPILOG
        )
        made.set_defaults(command=function)
        made.add_argument("--recipe", metavar="RECIPE", help="a recipe, or the name of a data set")
        if json_:
            made.add_argument("--json", action="store_true", help="print all of it as one JSON object")
        return made

    def positional_recipe(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("place", metavar="RECIPE", nargs="?", help="the same as --recipe")

    def limit(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--limit", metavar="ROWS", type=_count, default=20, help="rows to print (20; 0: all)")

    positional_recipe(command("list", _list, "list the versions of a data set; * is what the last check gave"))
    show = command("show", _show, "show a version: its counts, and what it was refused for")
    show.add_argument("version", metavar="VERSION", nargs="?", default="latest", help="which one (latest)")
    name = command("name", _name, "give a version a name", json_=False)
    name.add_argument("version", metavar="VERSION", help="which one")
    name.add_argument("name", metavar="NAME", help="small letters, digits, '.', '_' and '-'")
    name.add_argument("--move", action="store_true", help="take the name from the version that has it")
    diff = command("diff", _diff, "compare two versions, row by row")
    diff.add_argument("a", metavar="A", help="the older version")
    diff.add_argument("b", metavar="B", help="the newer version")
    limit(diff)
    restore = command("restore", _restore, "go back to a version: see that it is whole, and write its pictures")
    restore.add_argument("version", metavar="VERSION", help="which one")
    restore.add_argument("--to", metavar="FOLDER", type=Path, help="write its pictures and metadata.jsonl there")
    quarantine = command("quarantine", _quarantine, "list what was refused by the last check, and why")
    positional_recipe(quarantine)
    quarantine.add_argument("--kind", metavar="KIND", help="only rows refused for this, such as 'near duplicate'")
    quarantine.add_argument("--version", metavar="VERSION", help="of this version instead")
    limit(quarantine)
    release = command("release", _release, "use rows for all that they were refused for, until their files change")
    release.add_argument("rows", metavar="ROW_ID", nargs="+", help="rows in quarantine")
    release.add_argument("--note", default="", help="why, for those who come later")
    unrelease = command("unrelease", _unrelease, "take releases back")
    unrelease.add_argument("rows", metavar="ROW_ID", nargs="+", help="rows that were released")
    trace = command("trace", _trace, "say where a picture appears, from versions to models")
    trace.add_argument("what", metavar="WHAT", help="a ROW_ID, the first 8 or more digits of a picture's id, or a path")
    remove = command("remove", _remove, "keep pictures out for good, whatever source offers them")
    remove.add_argument(
        "what", metavar="WHAT", nargs="+", help="a ROW_ID or the first 8 or more digits of a picture's id"
    )
    remove.add_argument("--note", default="", help="who asked, and why")
    choice = remove.add_mutually_exclusive_group()
    choice.add_argument("--erase", action="store_true", help="erase all that the home folder has of them, too")
    choice.add_argument("--undo", action="store_true", help="withdraw the request")


# Versions


def _list(options: argparse.Namespace) -> int:
    from darkroom.versions.log import datasets, last_checked, versions

    store = _store()
    wanted = options.place or options.recipe
    names = [_dataset(wanted, store)] if wanted else datasets(store)
    found = {name: versions(name, store) for name in names}
    if options.json:
        return _json({"datasets": {name: [asdict(one) for one in known] for name, known in found.items()}})
    for name, known in found.items():
        print(f"{name}: {_many(len(known), 'version')}")
        last = last_checked(name, store)
        for one in known:
            mark = "*" if one.checked == last else " "
            print(f"{mark} {one.title:<12} {one.time}  {_numbers(one)}  {one.checked[:12]}")
    if not found:
        print("no data set was checked here yet: `darkroom check RECIPE` checks one")
    return 0


def _show(options: argparse.Namespace) -> int:
    from darkroom.quality.check import summary
    from darkroom.versions.log import report_of, resolve

    store = _store()
    version = resolve(_dataset(options.recipe, store), options.version, store)
    report = report_of(version, store)
    found = summary(report)
    if options.json:
        return _json({"version": asdict(version), "summary": found})
    print(f"{version.dataset}, version {version.title}, accepted {version.time}")
    print(f"  {_numbers(version)}")
    for kind, count in found["reasons"].items():
        print(f"  {count:>8,}  {shown(kind)}")
    print(f"checked         {version.checked}\nmanifest        {version.manifest}")
    print(f"builds upon     {version.previous or 'nothing: it is the first'}")
    print(f"quality report  {report.path / found['docs']}")
    return 0


def _name(options: argparse.Namespace) -> int:
    from darkroom.versions.log import name_version

    store = _store()
    made = name_version(_dataset(options.recipe, store), options.version, options.name, store, options.move)
    print(f"version {made.number} of {made.dataset} is named {made.name}")
    return 0


def _diff(options: argparse.Namespace) -> int:
    from darkroom.versions.compare import counts, diff, records
    from darkroom.versions.log import report_of, resolve

    store = _store()
    dataset = _dataset(options.recipe, store)
    a, b = (resolve(dataset, text, store) for text in (options.a, options.b))
    table = diff(report_of(a, store), report_of(b, store))
    if options.json:
        rows = records(table)
        return _json({"dataset": dataset, "a": asdict(a), "b": asdict(b), "counts": counts(table), "rows": rows})
    print(f"{dataset}: version {a.title} to version {b.title}")
    for what, count in counts(table).items():
        print(f"  {count:>8,}  {what}")
    if table.empty:
        print("  no difference")
    _print_rows(table, options.limit, lambda row: f"{row['what']:<12}  {shown(row['path'])}  {shown(row['detail'])}")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from darkroom.versions.log import checked_of, manifest_of, resolve
    from darkroom.versions.restore import restore

    store = _store()
    dataset = _dataset(options.recipe, store)
    version = resolve(dataset, options.version, store)
    manifest_of(version, store)
    checked = checked_of(version, store)
    if options.to is None:
        if options.json:
            return _json({"version": asdict(version), "whole": True})
        print(f"version {version.title} of {dataset} is whole: {_numbers(version)}")
        print(f"train on it     darkroom run RECIPE --data {version.name or version.number}")
        return 0
    with store.in_use():
        found = restore(checked, options.to, store)
    if options.json:
        _json({"version": asdict(version), "written": found.written, "lost": found.lost, "folder": str(options.to)})
    else:
        print(f"{found.written:,} pictures of version {version.title} are in {options.to}")
    for path in found.lost:
        print(f"darkroom: the bytes of {shown(path)} are lost or damaged", file=sys.stderr)
    return 1 if found.lost else 0


# Quarantine


def _quarantine(options: argparse.Namespace) -> int:
    from darkroom.reasons import kind_of
    from darkroom.versions.compare import records, rows_of
    from darkroom.versions.log import latest_report, report_of, resolve

    store = _store()
    dataset = _dataset(options.place or options.recipe, store)
    report: QualityReport = (
        report_of(resolve(dataset, options.version, store), store) if options.version else latest_report(dataset, store)
    )
    rows = rows_of(report, ("row_id", "id", "path", "source", "caption", "reasons"))
    rows = rows[~rows["accepted"]].drop(columns="accepted")
    total = len(rows)
    kinds = Counter(kind for reasons in rows["reasons"] for kind in sorted({kind_of(one) for one in reasons}))
    if options.kind:
        rows = rows[[options.kind in {kind_of(one) for one in reasons} for reasons in rows["reasons"]]]
    if options.json:
        return _json({"dataset": dataset, "checked": report.digest, "kinds": dict(kinds), "rows": records(rows)})
    print(f"{dataset}: {_many(total, 'row')} in quarantine")
    for kind, count in kinds.most_common():
        print(f"  {count:>8,}  {shown(kind)}")
    if options.kind and rows.empty:
        print(f"no row was refused for {shown(options.kind)!r}")

    def line(row: dict[str, Any]) -> str:
        picture = row["id"][:12] if row["id"] else "-" * 12
        return f"{picture}  {shown(row['path'])}  {shown('; '.join(row['reasons']))}"

    _print_rows(rows, options.limit, line)
    return 0


def _release(options: argparse.Namespace) -> int:
    from darkroom.quality import releases
    from darkroom.versions.compare import rows_of
    from darkroom.versions.log import latest_report
    from darkroom.versions.trace import pick

    store = _store()
    dataset = _dataset(options.recipe, store)
    rows = rows_of(latest_report(dataset, store))
    made = releases.release(dataset, pick(options.rows, rows[~rows["accepted"]]), store, options.note)
    if options.json:
        return _json({"dataset": dataset, "released": [asdict(one) for one in made]})
    for one in made:
        print(f"{one.row_id[:12]}  released: {shown(', '.join(one.kinds))}")
    print("the next `darkroom check` or `darkroom run` uses them")
    return 0


def _unrelease(options: argparse.Namespace) -> int:
    from darkroom.errors import RecipeError
    from darkroom.quality import releases

    store = _store()
    dataset = _dataset(options.recipe, store)
    known = releases.read(dataset, store)
    wanted = []
    for text in options.rows:
        found = [row_id for row_id in known if row_id.startswith(text)]
        if len(text) < 8 or len(found) != 1:
            raise RecipeError(
                f"{text!r} is not one released row of {dataset!r}; {_many(len(known), 'row')} are released"
            )
        wanted += found
    taken = releases.unrelease(dataset, wanted, store)
    if options.json:
        return _json({"dataset": dataset, "unreleased": [asdict(one) for one in taken]})
    for one in taken:
        print(f"{one.row_id[:12]}  no longer released: {shown(', '.join(one.kinds))}")
    return 0


# Pictures


def _trace(options: argparse.Namespace) -> int:
    from darkroom.errors import RecipeError
    from darkroom.versions.trace import trace, uses

    store = _store()
    names = _places(options, store)
    found = [one for name in names for one in trace([options.what], name, store)]
    if not found:
        raise RecipeError(f"{options.what!r} is no row, picture or path of {', '.join(names) or 'any data set'}")
    used = uses(found, store)
    models, remark = _models(found)
    if options.json:
        told = [asdict(one) for one in found]
        return _json({"appearances": told, "used": [asdict(one) for one in used], "models": models, "remark": remark})
    _print_appearances(found)
    _print_uses(used, models, remark)
    return 0


def _remove(options: argparse.Namespace) -> int:
    from darkroom.quality import removals
    from darkroom.settings import Settings
    from darkroom.versions.erase import erase
    from darkroom.versions.trace import files_of, trace, uses

    store = _store()
    if options.undo:
        return _undo(options, store)
    names = _places(options, store)
    requests: list[Removal] = []
    for text in options.what:
        requests += _requests(text, names, options, store)
    removals.add(requests, store)  # first of all: what follows may be killed and done again
    ids = sorted({one.id for one in requests if one.id})
    found = {name: trace(ids, name, store) for name in names} if ids else {}
    everything = [one for each in found.values() for one in each]
    used = uses(everything, store)
    models, remark = _models(everything, mark=requests[0].when)
    files = {path for name, each in found.items() for path in files_of(each, name, store)}
    gone = erase(ids, Settings().root, store) if options.erase else None
    if options.json:
        told = {"removed": [asdict(one) for one in requests], "used": [asdict(one) for one in used], "models": models}
        what = {"freed": [asdict(one) for one in gone.freed], "reports": gone.changed} if gone else None
        return _json({**told, "remark": remark, "files": len(files), "erased": bool(gone), "gone": what})
    for one in requests:
        print(f"removed  {f'picture {one.id[:12]}' if one.id else f'row {str(one.row_id)[:12]} of {one.dataset}'}")
    _print_appearances(everything)
    _print_uses(used, models, remark)
    print(f"{_many(len(files), 'file')} with their bytes {'erased' if gone else 'kept; --erase erases them'}")
    if gone:
        for went in gone.freed:
            print(f"{went.count:>8,}  {went.kind} erased")
        print(f"{_many(gone.changed, 'manifest or report', 'manifests and reports')} rewritten without them")
        print(LEFT)
    print("the next `darkroom check` or `darkroom run` leaves them out")
    return 0


def _undo(options: argparse.Namespace, store: "Store") -> int:
    from darkroom.errors import RecipeError
    from darkroom.quality import removals

    known = removals.read(store)
    wanted = set()
    for text in options.what:
        found = {name for one in known for name in (one.id, one.row_id) if name and name.startswith(text)}
        if len(text) < 8 or len(found) != 1:
            raise RecipeError(f"{text!r} is not one of the {len(known)} removal requests, by 8 digits or more")
        wanted |= found
    taken = removals.undo(wanted, store)
    _unmark([one.id for one in taken if one.id])
    if options.json:
        return _json({"withdrawn": [asdict(one) for one in taken]})
    print(f"{_many(len(taken), 'request')} withdrawn; pictures that were erased come back when a source offers them")
    return 0


def _requests(text: str, names: Sequence[str], options: argparse.Namespace, store: "Store") -> "list[Removal]":
    """What a text asks to remove: a picture; or a row, with the picture that it last had."""
    from datetime import UTC, datetime

    from darkroom.errors import RecipeError
    from darkroom.quality.releases import user
    from darkroom.quality.removals import Removal
    from darkroom.versions.trace import PREFIX, trace

    if not PREFIX.fullmatch(text):
        raise RecipeError(f"{text!r} is no row or picture: give the first 8 or more of its 64 hex digits")
    when = datetime.now(UTC).isoformat(timespec="seconds")

    def entry(picture: str | None, row_id: str | None = None, dataset: str | None = None) -> Removal:
        return Removal(picture, row_id, dataset, user(), when, options.note, options.erase)

    found = [(name, one) for name in names for one in trace([text], name, store)]
    pictures = {one.id for _, one in found if one.id and one.id.startswith(text)}
    rows = {(name, one.row_id): one.id for name, one in found if one.row_id.startswith(text)}
    if len(pictures) + len({row_id for _, row_id in rows}) > 1:
        raise RecipeError(f"{text!r} means several rows or pictures: give more digits")
    if rows:
        asked = [entry(None, row_id, name) for name, row_id in rows]
        return asked + [entry(picture) for picture in sorted(filter(None, rows.values()))]
    if not pictures and len(text) < 64:
        raise RecipeError(f"{text!r} is no row or picture known here; a picture to come is named by all 64 digits")
    return [entry(picture) for picture in pictures or {text}]


def _models(appearances: "Sequence[Appearance]", mark: str | None = None) -> tuple[list[dict[str, Any]], str]:
    """The model versions that hold these, and a remark where MLflow could not be asked.

    With a time, ``mark``, those that were trained on them are marked in MLflow as of then.
    """
    from darkroom.errors import DarkroomError
    from darkroom.pruning.prune import registry_of
    from darkroom.settings import Settings
    from darkroom.versions import marks

    registry = registry_of(Settings()) if appearances else None
    if registry is None:
        return [], ""
    found: list[dict[str, Any]] = []
    try:
        for one in marks.holders(registry, appearances):
            if mark and one.trained:
                marks.mark(registry, one, mark)
            version = {"model": one.version.model, "version": one.version.version, "checkpoint": one.version.checkpoint}
            found.append({**version, "sides": list(one.sides), "trained": one.trained})
    except DarkroomError as error:
        undone = "; run the same command again to mark them" if mark else ""
        return found, f"MLflow could not be asked for model versions: {error}{undone}"
    return found, ""


def _unmark(pictures: Sequence[str]) -> None:
    from darkroom.pruning.prune import registry_of
    from darkroom.settings import Settings
    from darkroom.versions import marks

    registry = registry_of(Settings()) if pictures else None
    if registry is not None:
        marks.unmark(registry, pictures)


# What all of them need


def _store() -> "Store":
    from darkroom.settings import Settings
    from darkroom.store import Store

    settings = Settings()
    return Store(settings.store, settings.reserve_bytes)


def _dataset(text: str | None, store: "Store") -> str:
    """The data set that a recipe belongs to or that has this name; without a text the only one there is."""
    from darkroom.errors import RecipeError
    from darkroom.recipe import load, recipe_files
    from darkroom.versions.log import dataset_of, datasets

    known = datasets(store)
    if text is None:
        if len(known) == 1:
            return known[0]
        there = f"name one of {', '.join(known)} with --recipe" if known else "`darkroom check RECIPE` checks one"
        raise RecipeError(f"there are {len(known)} data sets here: {there}")
    if text in known and not any(path.is_file() for path in recipe_files(text)):
        return text
    return dataset_of(load(text))


def _places(options: argparse.Namespace, store: "Store") -> list[str]:
    """The data sets to look at: the one that was named, or all."""
    from darkroom.versions.log import datasets

    return [_dataset(options.recipe, store)] if options.recipe else datasets(store)


def _json(value: object) -> int:
    print(json.dumps(value))  # in ASCII: what a file name has in it cannot steer the terminal
    return 0


def shown(text: object) -> str:
    """A text in one line that cannot steer the terminal: what is not printable is escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode("ascii")
        for letter in str("" if text is None else text)
    )


def _print_rows(table: "pd.DataFrame", limit: int, line: Any) -> None:
    """The first rows, each after its row_id, and how many more there are."""
    from darkroom.versions.compare import records

    part = table.head(limit) if limit else table
    for row in records(part):
        print(f"{row['row_id'][:12]}  {line(row)}")
    if len(part) < len(table):
        print(f"and {len(table) - len(part):,} more; --limit 0 prints all, --json for programs")


def _print_appearances(found: "Iterable[Appearance]") -> None:
    for one in found:
        place = f"{one.version.dataset} {one.version.title}" if one.version else "the last report"
        standing = one.side or f"in quarantine: {'; '.join(one.reasons)}"
        picture = one.id[:12] if one.id else "-" * 12
        print(f"{place:<16}  {one.row_id[:12]}  {picture}  {shown(one.path)}  {shown(standing)}")
        for flag in one.flags:
            print(f"{'':<18}{shown(flag)}")


def _print_uses(used: "Iterable[Use]", models: list[dict[str, Any]], remark: str) -> None:
    for one in used:
        name = f" of {shown(one.name)}" if one.name else ""
        print(f"{one.kind:<16}  {one.digest[:12]}{name}, {' and '.join(one.sides)} side")
    for model in models:
        what = "was trained on it" if model["trained"] else "was measured on it"
        print(f"model version     {model['model']}/{model['version']} {what}")
    if remark:
        print(f"darkroom: {shown(remark)}", file=sys.stderr)


def _numbers(version: "Version") -> str:
    return (
        f"{version.rows:,} rows, {version.accepted:,} accepted, {version.quarantined:,} in quarantine; "
        f"{version.new:,} new, {version.changed:,} changed, {version.gone:,} gone"
    )


def _many(count: int, what: str, several: str = "") -> str:
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)
