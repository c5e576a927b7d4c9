"""The versions of a data set: every accepted batch, in the order of acceptance, each built upon the one before.

``store/data/<dataset>/versions.jsonl`` has one line a version and only ever grows (a version's name may change). It is
written as a whole beside itself and moved into place, under a lock, so that a kill at any point leaves the old or the
new list. ``history/<digest>.parquet`` beside it keeps what the sticky split remembers, also when old artifacts are
pruned; ``latest.json`` names the last report, whether it passed or not.

What a check builds upon (its base) is the newest version, and belongs to its digest. A check whose question (manifest,
rules, releases: its key) was answered by a version before builds upon what that version was built upon: so a run that
finds nothing new gets the same digests, although the newest version is by now its own. A version is accepted only when
its base still is the newest: else two runs at the same time could each forget what the other one assigned.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from darkroom.artifacts import CheckedManifest, Manifest, QualityReport
from darkroom.errors import DarkroomError, RecipeError
from darkroom.recipe import Recipe
from darkroom.store import Store, marker, write_json

if TYPE_CHECKING:
    import pandas as pd

LOG, LATEST, HISTORY = "versions.jsonl", "latest.json", "history.parquet"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PREFIX = re.compile(r"[0-9a-f]{6,64}")
ATTEMPTS = 20
A = TypeVar("A", Manifest, CheckedManifest)


class Overtaken(DarkroomError):
    """Another version was accepted since this check began: check again upon that one."""


@dataclass(frozen=True)
class Version:
    """One accepted batch: ``checked`` and ``manifest`` are digests, ``previous`` that of the version it builds upon.

    ``new``, ``changed`` and ``gone`` count rows, in quarantine or not, against the previous version; ``time`` is UTC.
    """

    dataset: str
    number: int
    checked: str
    manifest: str
    key: str
    previous: str | None
    time: str
    rows: int
    accepted: int
    quarantined: int
    new: int
    changed: int
    gone: int
    name: str | None = None

    @property
    def title(self) -> str:
        """How people call it: its number, and its name where it has one."""
        return f"{self.number} ({self.name})" if self.name else str(self.number)


def dataset_of(plan: Recipe) -> str:
    """The name of the history that a recipe's data belongs to."""
    return plan.collect.dataset or plan.name


def folder(dataset: str, store: Store) -> Path:
    """Where all that is remembered of a data set lies."""
    return store.root / "data" / dataset


def datasets(store: Store) -> list[str]:
    """The data sets that were ever checked here."""
    found = [path.parent.name for name in (LOG, LATEST) for path in (store.root / "data").glob(f"*/{name}")]
    return sorted(set(found))


def versions(dataset: str, store: Store) -> list[Version]:
    """All versions, the oldest first."""
    path = folder(dataset, store) / LOG
    if not path.is_file():
        return []
    return [Version(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def base_of(dataset: str, key: str, store: Store) -> str | None:
    """The digest of the version that a check with this key builds upon; None for the first.

    ``key`` is a digest of all that decides on the outcome but the base itself. The answer is the same for a repeated
    run, whether it was killed before its version was accepted (then the newest version still is) or after (then the
    version remembers what it was built upon).
    """
    known = versions(dataset, store)
    for version in reversed(known):
        if version.key == key:
            return version.previous
    return known[-1].checked if known else None


def history_of(dataset: str, base: str | None, store: Store) -> "pd.DataFrame | None":
    """What the sticky split remembers at a base; see :func:`darkroom.quality.split.extend_history`.

    Raises :class:`DarkroomError` where it is lost: splitting without it would move pictures to the other side.
    """
    import pandas as pd

    if base is None:
        return None
    for path in (_history_path(dataset, base, store), store.root / QualityReport.kind / base / HISTORY):
        if path.is_file():
            return pd.read_parquet(path)
    raise DarkroomError(
        f"the history of the data set {dataset!r} is gone: {_history_path(dataset, base, store)} is missing. Put it "
        "back from a backup, or begin a new history under another name with collect.dataset"
    )


def note(dataset: str, report: QualityReport, store: Store) -> None:
    """Remember that this is the last report on the data set, whether it passed or not: what a reviewer looks at."""
    with store.lock(f"data-{dataset}"):
        path = folder(dataset, store) / LATEST
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"checked": report.digest, "time": _now()})


def last_checked(dataset: str, store: Store) -> str | None:
    """The digest of the last report, also where the store has lost it; None where there was none."""
    path = folder(dataset, store) / LATEST
    return str(json.loads(path.read_text("utf-8"))["checked"]) if path.is_file() else None


def latest_report(dataset: str, store: Store) -> QualityReport:
    """The last report; raises :class:`RecipeError` when there is none."""
    digest = last_checked(dataset, store)
    report = store.find(QualityReport, digest) if digest else None
    if report is None:
        raise RecipeError(f"the data set {dataset!r} has no report here: `darkroom check RECIPE` makes one")
    return report


def record(dataset: str, report: CheckedManifest, key: str, store: Store) -> Version:
    """Accept a report that passed the data gate as the next version; one that is a version already stays that version.

    The report's artifact names its ``manifest`` and its ``base`` among its inputs. Raises :class:`Overtaken` when the
    base is no longer the newest version.
    """
    from .compare import changes, rows_of

    summary = json.loads((report.path / "summary.json").read_text("utf-8"))
    if not summary["passed"]:
        raise DarkroomError(f"report {report.short} did not pass the data gate and cannot become a version")
    inputs = marker(report)["inputs"]
    with store.lock(f"data-{dataset}"):
        known = versions(dataset, store)
        for version in known:
            if version.checked == report.digest:
                return version
        newest = known[-1].checked if known else None
        if inputs.get("base") != newest:
            raise Overtaken(
                f"version {known[-1].number if known else 0} of the data set {dataset!r} was accepted while this batch "
                "was checked: run the same command again"
            )
        before = store.find(QualityReport, newest) if newest else None
        found = changes(rows_of(before) if before else None, rows_of(report))
        _keep_history(dataset, report, store)
        made = Version(
            dataset=dataset,
            number=len(known) + 1,
            checked=report.digest,
            manifest=str(inputs["manifest"]),
            key=key,
            previous=newest,
            time=_now(),
            rows=int(summary["rows"]),
            accepted=int(summary["accepted"]),
            quarantined=int(summary["quarantined"]),
            new=len(found.new),
            changed=len(found.changed),
            gone=len(found.gone),
        )
        _write(dataset, [*known, made], store)
        return made


def settle(
    dataset: str, key: str, store: Store, judge: Callable[[str | None], CheckedManifest]
) -> tuple[CheckedManifest, Version]:
    """Check upon the newest version and accept the outcome, again where another run was faster.

    ``judge(base)`` checks upon a base, goes through the data gate and returns what passed; what it raises passes on.
    """
    for attempt in range(ATTEMPTS):
        checked = judge(base_of(dataset, key, store))
        try:
            return checked, record(dataset, checked, key, store)
        except Overtaken:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def resolve(dataset: str, text: str, store: Store) -> Version:
    """The version that ``3``, a name, ``latest`` or the beginning of a digest (6 digits or more) means.

    Raises :class:`RecipeError` that says which there are.
    """
    known = versions(dataset, store)
    matches = [one for one in known if text in (str(one.number), one.name)]
    if text == "latest":
        matches = known[-1:]
    if not matches and PREFIX.fullmatch(text):
        matches = [one for one in known if one.checked.startswith(text) or one.manifest.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    there = ", ".join(one.title for one in known[-10:]) or "none yet; `darkroom run` makes one"
    what = f"means versions {', '.join(one.title for one in matches)}" if matches else "is no version"
    raise RecipeError(f"{text!r} {what} of the data set {dataset!r}; its versions are {there}")


def name_version(dataset: str, text: str, name: str, store: Store, move: bool = False) -> Version:
    """Give a version a name; ``move`` takes the name from another version that has it."""
    if not NAME.fullmatch(name) or name == "latest" or name.isdigit() or PREFIX.fullmatch(name):
        raise RecipeError(
            f"{name!r} cannot name a version: use small letters, digits, '.', '_' and '-', and nothing that reads "
            "as a number, a digest or 'latest'"
        )
    wanted = resolve(dataset, text, store).number
    with store.lock(f"data-{dataset}"):
        known = versions(dataset, store)
        other = next((one for one in known if one.name == name and one.number != wanted), None)
        if other and not move:
            raise RecipeError(f"version {other.number} is already named {name!r}; --move takes the name from it")
        renamed = [
            replace(one, name=name) if one.number == wanted else replace(one, name=None) if one == other else one
            for one in known
        ]
        _write(dataset, renamed, store)
        return renamed[wanted - 1]


def manifest_of(version: Version, store: Store) -> Manifest:
    """The manifest of a version; raises :class:`DarkroomError` when the store lost it."""
    return _had(Manifest, version.manifest, version, store)


def report_of(version: Version, store: Store) -> QualityReport:
    """The report of a version, to look at; raises :class:`DarkroomError` when the store lost it."""
    return _had(CheckedManifest, version.checked, version, store)


def checked_of(version: Version, store: Store) -> CheckedManifest:
    """The accepted rows of a version, to go back to; raises :class:`DarkroomError` when the store lost them.

    Also raised where pictures of it were erased on request: it cannot be made again without them.
    """
    found = _had(CheckedManifest, version.checked, version, store)
    if count := erased(version, store):
        raise DarkroomError(
            f"version {version.title} of {version.dataset!r} cannot be gone back to: {count:,} of its pictures "
            "were erased on request; run the recipe without --data"
        )
    return found


def erased(version: Version, store: Store) -> int:
    """How many of a version's pictures were erased on request; 0 where the store lost its table."""
    import pandas as pd

    from darkroom.quality import removals

    ids = {one.id for one in removals.read(store) if one.erased}
    found = store.find(CheckedManifest, version.checked) if ids else None
    if found is None:
        return 0
    return int(pd.read_parquet(found.path / "checked.parquet", columns=["id"])["id"].isin(ids).sum())


def _had(kind: type[A], digest: str, version: Version, store: Store) -> A:
    found = store.find(kind, digest)
    if found is None:
        raise DarkroomError(
            f"version {version.title} of {version.dataset!r} is not whole: {store.place(kind, digest)} is missing or "
            "damaged; put it back from a backup"
        )
    return found


def _history_path(dataset: str, digest: str, store: Store) -> Path:
    return folder(dataset, store) / "history" / f"{digest}.parquet"


def _keep_history(dataset: str, report: QualityReport, store: Store) -> None:
    """Keep the report's history apart from the artifact, by a hard link or a copy."""
    path = _history_path(dataset, report.digest, store)
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(report.path / HISTORY, temporary)
    except OSError:
        shutil.copyfile(report.path / HISTORY, temporary)
    os.replace(temporary, path)


def _write(dataset: str, known: list[Version], store: Store) -> None:
    path = folder(dataset, store) / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{LOG}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(_line(one), ensure_ascii=False)}\n" for one in known)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _line(version: Version) -> dict[str, Any]:
    return {key: value for key, value in asdict(version).items() if value is not None or key == "previous"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
