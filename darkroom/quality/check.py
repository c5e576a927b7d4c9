"""Checking: measure every picture and caption, refuse what cannot be trained on, judge the whole by expectations.

:func:`gate` is the data gate: it reads as the order in which a batch is judged. What was accepted becomes the next
version of the data set (:mod:`darkroom.versions.log`), which the check after it builds upon.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import CheckedManifest, Manifest, QualityReport
from darkroom.errors import DataGateRefused, RecipeError, ServiceUnavailable
from darkroom.reasons import kind_of, reason
from darkroom.recipe import Check, Recipe
from darkroom.stages import stage_digest
from darkroom.store import Store, file_digest, write_json
from darkroom.versions import log
from darkroom.weights.base import tokenizer_of
from darkroom.weights.locate import Weights, locate

from . import drift, duplicates, fit, licences, releases, removals, safety
from .captions import judge_captions, tokens_of
from .measuring import measure_all
from .picture import Rules
from .split import assign, extend_history

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
COMMON, DRIFT = "manifest", "drift"  # the suites over every row and over drift; the recipe's own is over accepted rows
HISTORY = "history.parquet"
UNKNOWN = "unknown"  # the licence of a picture whose source names none
UNSEEN = {"undecodable", "unreadable", "too large", "too many pixels", removals.REMOVED}  # reasons to show no picture
# What a file may be called, by the format that it has.
SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "MPO": {".jpg", ".jpeg", ".mpo"}, "PNG": {".png", ".apng"},
    "GIF": {".gif"}, "WEBP": {".webp"}, "BMP": {".bmp", ".dib"}, "TIFF": {".tif", ".tiff"}, "AVIF": {".avif"},
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """What is asked of a check, but for the version that it builds upon: all that decides on its answer."""

    manifest: Manifest
    plan: Recipe
    suites: Mapping[str, Path]
    encoder: Weights | None
    released: Mapping[str, releases.Release]
    removed: tuple[removals.Removal, ...]
    fields: dict[str, Any]
    inputs: dict[str, Any]

    @property
    def dataset(self) -> str:
        """The name of the history that the data belongs to."""
        return log.dataset_of(self.plan)

    @property
    def key(self) -> str:
        """The digest of the question."""
        return stage_digest("checked", self.fields, self.inputs)


def gate(
    manifest: Manifest,
    plan: Recipe,
    store: Store,
    *,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
    suites: Path | None = None,
    fresh: bool = False,
    show: Callable[[QualityReport], None] = lambda report: None,
) -> CheckedManifest:
    """Check a manifest, and accept it as a version of its data set; ``show`` is given the report, passed or not.

    Raises :class:`DataGateRefused` when a critical expectation was not met.
    """
    question = ask(manifest, plan, store, suites)

    def judged(base: str | None) -> CheckedManifest:
        report = check(question, base, store, workers=workers, progress=progress, fresh=fresh)
        show(report)
        return accept(report)

    return log.settle(question.dataset, question.key, store, judged)[0]


def ask(manifest: Manifest, plan: Recipe, store: Store, suites: Path | None = None) -> Question:
    """Gather what a check depends on; raises :class:`RecipeError` for a suite or a classifier that is not there."""
    import pandas as pd

    dataset = log.dataset_of(plan)
    files = {name: find_suite(name, suites) for name in dict.fromkeys((COMMON, plan.check.suite, DRIFT))}
    known = log.versions(dataset, store)
    requests, released = removals.read(store), releases.read(dataset, store)
    table = pd.read_parquet(manifest.path / "manifest.parquet", columns=["row_id", "id"])
    history = log.history_of(dataset, known[-1].checked, store) if known and requests else None
    concerned = tuple(removals.concerning(requests, dataset, table, history))
    encoder = _encoder(plan)
    judges = {
        name: locate(one).sha256 for name in ("safety", "captioner", "clip") if (one := getattr(plan.check, name))
    }
    inputs = {
        "manifest": manifest.digest,
        "suites": {name: file_digest(path) for name, path in files.items()},
        "releases": releases.digest_fields(released, table),
        "removals": removals.digest_fields(concerned),
        "encoder": encoder.sha256 if encoder else None,
        **judges,
    }
    fields = {**plan.check.digest_fields(), "min_side": plan.min_side, "split": plan.split.digest_fields()}
    return Question(manifest, plan, files, encoder, released, concerned, fields, inputs)


def _encoder(plan: Recipe) -> Weights | None:
    """The text encoder, whose tokenizer counts; a hub that is away must not stop the review of pictures."""
    try:
        if plan.model.text_encoder is None:
            return tokenizer_of(plan.model.base) if plan.model.base else None
        return locate(plan.model.text_encoder)
    except ServiceUnavailable:
        return None


def check(
    question: Question,
    base: str | None,
    store: Store,
    *,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
    fresh: bool = False,
) -> QualityReport:
    """Measure and judge upon the version ``base``; ``progress`` is told (pictures done, pictures in all).

    The report is kept whether the data passed or not; :func:`accept` is the gate.
    """
    inputs = {**question.inputs, **({"base": base} if base else {})}
    digest = stage_digest("checked", question.fields, inputs)

    def build(work: Path) -> None:
        from darkroom.versions.compare import changes

        from . import checkpoint

        history = log.history_of(question.dataset, base, store)
        last = store.find(QualityReport, base) if base else None
        earlier = _rows_before(last)
        before = None if earlier is None else earlier[earlier["accepted"]].reset_index(drop=True)
        table, joined, pairs = judge(question, history, store, workers, progress)
        found = _drift(table, before, question.plan.split.seed)
        suite = question.plan.check.suite
        tables = {COMMON: table, suite: table, DRIFT: found.table()}
        among = {suite: table["accepted"]}
        outcome = checkpoint.run(tables, question.suites, work, run_name=digest[:12], among=among)
        accepted = table[table["accepted"]].reset_index(drop=True)
        accepted.drop(columns=["reasons", "accepted"]).to_parquet(work / "checked.parquet", index=False)
        table[~table["accepted"]].drop(columns="accepted").to_parquet(work / "quarantine.parquet", index=False)
        pairs.to_parquet(work / "pairs.parquet", index=False)
        extend_history(history, accepted, joined, question.plan.split.seed).to_parquet(work / HISTORY, index=False)
        found.write(work / drift.FILE)
        differences = changes(earlier, table)
        changed = {name: len(getattr(differences, name)) for name in ("new", "changed", "gone")}
        _review(work, question, table, before, outcome, found, changed if last else {}, store)
        kinds = counts_by_kind(table["reasons"])
        write_json(
            work / "summary.json",
            {
                "passed": outcome.passed,
                "expectations": outcome.evaluated,
                "findings": [vars(finding) for finding in outcome.findings],
                "docs": outcome.docs.as_posix(),
                "review": "review/index.html",
                "rows": len(table),
                "accepted": len(accepted),
                "quarantined": len(table) - len(accepted),
                "duplicates": sum(kinds.get(kind, 0) for kind in ("duplicate", "near duplicate")),
                "reasons": kinds,
                "flags": counts_by_kind(accepted["flags"]),
                "mended": int(accepted["mended"].map(len).gt(0).sum()),
                "drift": found.level,
                "changes": changed,
            },
        )

    made = store.get_or_build(QualityReport, digest, build, inputs=inputs, fields=question.fields, fresh=fresh)
    log.note(question.dataset, made, store)
    return made


def _drift(table: "pd.DataFrame", before: "pd.DataFrame | None", seed: int) -> drift.Drift:
    """What is accepted of a judged table, compared with what was accepted before."""
    accepted = table.loc[table["accepted"], [name for name in drift.COLUMNS if name in table]].reset_index(drop=True)
    return drift.compare(drift.fresh(accepted, before), before, seed)


def judge(
    question: Question, history: "pd.DataFrame | None", store: Store, workers: int, progress: Progress
) -> "tuple[pd.DataFrame, dict[str, tuple[str, ...]], pd.DataFrame]":
    """(every row with its measures, cluster, side, reasons and flags; the clusters joined; the pairs of copies)."""
    import pandas as pd

    plan, rules = question.plan.check, question.plan.split
    table = read_manifest(question.manifest)
    table = table.assign(flags=pd.Series(_none(table), dtype=object))
    table = removals.refuse(table, question.removed)

    # The pictures, each looked at once in its life.
    ids = [
        one if isinstance(one, str) and not said else None
        for one, said in zip(table["id"], table["reasons"], strict=True)
    ]
    looks = Rules(question.plan.min_side, plan.max_pixels, plan.working_side, plan.max_aspect)
    table = _measured(table, measure_all(ids, looks, store, workers, progress))

    # The captions and labels.
    captions = judge_captions(
        table,
        plan,
        tokens_of(question.encoder.path) if question.encoder else None,
        _captioner(plan, table, store),
    )
    table = table.assign(**{str(name): captions.frame[name] for name in captions.frame})
    table = _said(table, captions.reasons, captions.flags)

    keys = table["key"].where(table["key"].duplicated(keep=False))
    table = _said(
        table, [], [[reason("check", "repeated key", str(key))] if isinstance(key, str) else [] for key in keys]
    )

    # What may be used: licences, safety; and what a person allowed for all that.
    scores, unsafe = safety.judge(list(table["working"]), plan, store)
    forbidden, remarks = licences.judge(table["licence"], plan.licences), licences.remarks(table["licence"])
    unknown = [reason("check", "licence unknown") if one == UNKNOWN else None for one in table["licence"]]
    looked_at = [key if not said else None for key, said in zip(table["working"], table["reasons"], strict=True)]
    unfit = fit.judge(looked_at, list(table["caption"]), plan, store)
    table = table.assign(safety=pd.Series(scores, dtype="float64"))
    table = _said(table, _lists(forbidden, unsafe), _lists(remarks, unknown, unfit))
    table = releases.apply(table, question.released)

    # Copies: one of each is kept, and all of a cluster are on one side, that of their history.
    usable = table["reasons"].map(len).eq(0).to_numpy()
    clusters = duplicates.find(table, usable, plan, history)
    table = removals.refuse_copies(table, clusters.name, clusters.joined, question.removed, history)
    sides = assign(table, clusters.name, clusters.joined, history, rules.seed, rules.validation_share)
    table = table.assign(
        duplicate_cluster=pd.Series(clusters.name, dtype="str"), split=pd.Series(sides.side, dtype="str")
    )
    withdrawn = [[sides.withdrawn[row]] if row in sides.withdrawn else [] for row in range(len(table))]
    table = _said(table, clusters.reasons, clusters.flags)
    table = _said(table, withdrawn, [])
    table = releases.apply(table, question.released)
    table = table.assign(accepted=[not reasons for reasons in table["reasons"]])
    return table, sides.joined, clusters.pairs


def accept(report: QualityReport) -> CheckedManifest:
    """The data gate: raises :class:`DataGateRefused` when a critical expectation was not met."""
    found = summary(report)
    if not found["passed"]:
        critical = [finding["rule"] for finding in found["findings"] if finding["severity"] == "critical"]
        review, docs = report.path / found["review"], report.path / found["docs"]
        raise DataGateRefused(f"the data was refused: {'; '.join(critical)}. The pictures: {review}. Open {docs}")
    return CheckedManifest(report.digest, report.path, report.reused)


def summary(report: QualityReport | CheckedManifest) -> dict[str, Any]:
    """What check found: counts, reasons, findings and the pages, relative to the artifact."""
    content: dict[str, Any] = json.loads((report.path / "summary.json").read_text("utf-8"))
    return content


def find_suite(name: str, folder: Path | None = None) -> Path:
    """The file of a suite; raises :class:`RecipeError` naming those that exist."""
    root = Path(__file__).parents[1]
    places = [folder] if folder else [Path("expectations"), root.parent / "expectations", root / "_expectations"]
    for place in places:
        if (place / f"{name}.json").is_file():
            return place / f"{name}.json"
    known = sorted({path.stem for place in places for path in place.glob("*.json")})
    raise RecipeError(f"check.suite = {name!r}: there is no expectations/{name}.json; there are {', '.join(known)}")


def read_manifest(manifest: Manifest) -> "pd.DataFrame":
    """The manifest's table; ``reasons`` holds lists."""
    import pandas as pd

    table = pd.read_parquet(manifest.path / "manifest.parquet")
    table["reasons"] = [list(reasons) for reasons in table["reasons"]]
    return table


def counts_by_kind(column: "pd.Series") -> dict[str, int]:
    """How many rows each kind of reason or flag concerns."""
    kinds = (kind for texts in column for kind in {kind_of(one) for one in texts})
    return dict(sorted(Counter(kinds).items()))


def _measured(table: "pd.DataFrame", found: Mapping[str, list[Any]]) -> "pd.DataFrame":
    """The table with what the pass found of each row, its reasons and its flags."""
    import pandas as pd

    texts = {"format", "mode", "phash", "dhash", "crops", "descriptor", "pixels", "working"}
    columns = {
        name: pd.Series(values, dtype="str" if name in texts else None, index=table.index)
        for name, values in found.items()
        if name not in ("reason", "flags", "converted")
    }
    converted = pd.Series([values or [] for values in found["converted"]], dtype=object, index=table.index)
    reasons = [[f"check: {one}"] if one else [] for one in found["reason"]]
    flags = [
        [*(f"check: {flag}" for flag in said), *_misnamed(path, format_)]
        for path, format_, said in zip(table["path"], found["format"], found["flags"], strict=True)
    ]
    return _said(table.assign(**columns, converted=converted), reasons, flags)


def _misnamed(path: str, format_: str | None) -> list[str]:
    """A remark on a file whose name says another format than it has."""
    suffix = PurePosixPath(path).suffix.lower()
    known = format_ is not None and any(suffix in suffixes for suffixes in SUFFIXES.values())
    if not known or suffix in SUFFIXES.get(str(format_), {suffix}):
        return []
    return [reason("check", "misnamed file", f"{suffix} holds {format_}")]


def _captioner(plan: Check, table: "pd.DataFrame", store: Store) -> "Callable[[list[str]], dict[str, str]] | None":
    if plan.captioner is None:
        return None
    from .captioner import captioner

    working = {picture: key for picture, key in zip(table["id"], table["working"], strict=True) if isinstance(key, str)}
    return captioner(plan.captioner, store.root, working)


def _said(table: "pd.DataFrame", reasons: list[list[str]], flags: list[list[str]]) -> "pd.DataFrame":
    """The table with these reasons and flags behind those that each row has."""
    import pandas as pd

    if not any(reasons) and not any(flags):
        return table
    return table.assign(
        reasons=pd.Series([[*old, *new] for old, new in zip(table["reasons"], reasons or _none(table), strict=True)]),
        flags=pd.Series([[*old, *new] for old, new in zip(table["flags"], flags or _none(table), strict=True)]),
    )


def _none(table: "pd.DataFrame") -> list[list[str]]:
    return [[] for _ in range(len(table))]


def _lists(*columns: list[str | None]) -> list[list[str]]:
    """Columns of texts or None -> for each row the texts that there are."""
    return [[text for text in row if text is not None] for row in zip(*columns, strict=True)]


def _rows_before(last: QualityReport | None) -> "pd.DataFrame | None":
    """The rows of the last version, with all that they are compared by, read once."""
    from darkroom.report.review import MEASURES
    from darkroom.versions.compare import READ, rows_of

    return rows_of(last, list(dict.fromkeys((*READ, *drift.COLUMNS, *MEASURES)))) if last else None


def _review(
    work: Path,
    question: Question,
    table: "pd.DataFrame",
    before: "pd.DataFrame | None",
    outcome: Any,
    found: drift.Drift,
    changed: Mapping[str, int],
    store: Store,
) -> None:
    """Write the reviewer's page."""
    from darkroom.collect.manifest import picture_path
    from darkroom.preprocess.amount import advice
    from darkroom.report.review import Review, write

    from .picture import thumbnail_path, working_path

    accepted = table[table["accepted"]]
    labels = Counter(label for label in accepted["label"] if isinstance(label, str))

    def picture(row: Mapping[str, Any]) -> Path | None:
        if isinstance(row.get("working"), str):
            return working_path(store.root, row["working"])
        # Only what the strict decoder has decoded before, in a process that may crash, is decoded here.
        decoded = isinstance(row.get("id"), str) and not UNSEEN.intersection(map(kind_of, row["reasons"]))
        return picture_path(store, row["id"]) if decoded else None

    write(
        work / "review" / "index.html",
        Review(
            name=question.dataset,
            rows=table,
            before=before,
            passed=outcome.passed,
            findings=[vars(finding) for finding in outcome.findings],
            expectations=outcome.evaluated,
            docs=f"../{outcome.docs.as_posix()}",
            picture=picture,
            kept=lambda path: thumbnail_path(store.root, path),
            drift=[vars(one) for one in found.measures if one.level != "none"],
            changes=changed,
            advice=advice(
                len(accepted),
                dict(labels) or None,
                "from scratch",
                question.plan.preprocess.size,
                question.plan.preprocess.augment.variants,
            ).paragraphs,
        ),
    )
