"""Checking: measure every picture and caption, refuse what cannot be trained on, judge the whole by expectations."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import CheckedManifest, Manifest, QualityReport
from darkroom.cache import Cache
from darkroom.collect.manifest import picture_path
from darkroom.errors import DataGateRefused, RecipeError
from darkroom.reasons import kind_of, reason
from darkroom.recipe import Check, Split
from darkroom.stages import stage_digest
from darkroom.store import Store, file_digest, write_json

from .picture import MEASURES, Rules, measure, working_path
from .split import side

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
COMMON = "manifest"  # the suite over every row; the recipe's own is over the accepted ones


def check(
    manifest: Manifest,
    plan: Check,
    split: Split,
    store: Store,
    progress: Progress = lambda done, total: None,
    suites: Path | None = None,
    fresh: bool = False,
) -> QualityReport:
    """Measure and judge a manifest; ``progress`` is told (pictures done, pictures in all).

    The report is kept whether the data passed or not; :func:`accept` is the gate.
    """
    files = {name: find_suite(name, suites) for name in dict.fromkeys((COMMON, plan.suite))}
    inputs = {"manifest": manifest.digest, "suites": {name: file_digest(path) for name, path in files.items()}}
    fields = {**plan.digest_fields(), "split": split.digest_fields()}
    digest = stage_digest("checked", fields, inputs)

    def build(work: Path) -> None:
        from . import checkpoint

        table = judge(read_manifest(manifest), plan, split, store, progress)
        accepted = table[table["accepted"]].reset_index(drop=True)
        tables = {COMMON: flat(table), plan.suite: flat(accepted)}
        outcome = checkpoint.run(tables, files, work, run_name=digest[:12])
        accepted.drop(columns=["reasons", "accepted"]).to_parquet(work / "checked.parquet", index=False)
        table[~table["accepted"]].drop(columns="accepted").to_parquet(work / "quarantine.parquet", index=False)
        write_json(
            work / "summary.json",
            {
                "passed": outcome.passed,
                "expectations": outcome.evaluated,
                "findings": [vars(finding) for finding in outcome.findings],
                "docs": outcome.docs.as_posix(),
                "rows": len(table),
                "accepted": len(accepted),
                "quarantined": len(table) - len(accepted),
                "duplicates": reasons_by_kind(table).get("duplicate", 0),
                "reasons": reasons_by_kind(table),
            },
        )

    return store.get_or_build(QualityReport, digest, build, inputs=inputs, fields=fields, fresh=fresh)


def accept(report: QualityReport) -> CheckedManifest:
    """The data gate: raises :class:`DataGateRefused` when a critical expectation was not met."""
    found = summary(report)
    if not found["passed"]:
        critical = [finding["rule"] for finding in found["findings"] if finding["severity"] == "critical"]
        raise DataGateRefused(f"the data was refused: {'; '.join(critical)}. Open {report.path / found['docs']}")
    return CheckedManifest(report.digest, report.path, report.reused)


def summary(report: QualityReport | CheckedManifest) -> dict[str, Any]:
    """What check found: counts, reasons, findings and the Data Docs page, relative to the artifact."""
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


def judge(table: "pd.DataFrame", plan: Check, split: Split, store: Store, progress: Progress) -> "pd.DataFrame":
    """Add what measuring finds, ``duplicate_cluster``, ``split``, every reason to refuse, and ``accepted``."""
    import pandas as pd

    measured = measure_all(table, Rules(plan.min_side, plan.max_pixels, plan.working_side), store, progress)
    found = [measured.get(picture_id, {}) for picture_id in table["id"]]
    reasons = [
        [*before, *([f"check: {values['reason']}"] if "reason" in values else []), *caption_faults(caption, plan)]
        for before, values, caption in zip(table["reasons"], found, table["caption"], strict=True)
    ]
    table = table.assign(
        **{name: pd.Series([values.get(name) for values in found]) for name in (*MEASURES, "working")},
        caption_words=[len(caption.split()) if isinstance(caption, str) else 0 for caption in table["caption"]],
    )
    cluster, duplicates = find_duplicates(table, reasons)
    for row, copy_of in duplicates.items():
        reasons[row] = [*reasons[row], reason("check", "duplicate", f"of {copy_of}")]
    return table.assign(
        duplicate_cluster=pd.Series(cluster),
        split=pd.Series([name and side(name, split.seed, split.validation_share) for name in cluster]),
        reasons=pd.Series(reasons),
        accepted=[not one for one in reasons],
    )


def measure_all(table: "pd.DataFrame", rules: Rules, store: Store, progress: Progress) -> dict[str, dict[str, Any]]:
    """Measures by picture id: from the cache, or by one pass over each picture that was never seen."""
    ids = sorted({picture_id for picture_id in table["id"] if isinstance(picture_id, str)})
    found: dict[str, dict[str, Any]] = {}
    with Cache(store.root / "cache.db") as cache:
        known = cache.get("measures", [rules.key(picture_id) for picture_id in ids])
        learnt: dict[str, dict[str, Any]] = {}
        try:
            for done, picture_id in enumerate(ids, start=1):
                key = rules.key(picture_id)
                copy = working_path(store.root, key)
                values = known.get(key)
                if values is None or ("reason" not in values and not copy.is_file()):
                    values = learnt[key] = measure(picture_path(store, picture_id), rules, copy)
                found[picture_id] = values if "reason" in values else {**values, "working": key}
                progress(done, len(ids))
        finally:
            cache.put("measures", learnt)
    return found


def caption_faults(caption: object, plan: Check) -> list[str]:
    """Why a caption cannot be trained on."""
    if not isinstance(caption, str) or not caption.strip():
        return [reason("check", "no caption")]
    if len(caption) > plan.max_caption:
        detail = f"{len(caption):,} characters, check.max_caption = {plan.max_caption:,}"
        return [reason("check", "caption too long", detail)]
    if any(ord(character) < 32 and character not in "\t\n" for character in caption):
        return [reason("check", "caption has control characters")]
    return []


def find_duplicates(table: "pd.DataFrame", reasons: list[list[str]]) -> tuple[list[str | None], dict[int, str]]:
    """(cluster of each row, {row to drop: path of the copy to keep}).

    A cluster is all rows with the same pixels and is named after them, so that a picture without a double is a cluster
    of its own. The first usable row of a cluster by path is kept.
    """
    members: dict[str, list[int]] = {}
    for row, pixels in enumerate(table["pixels"]):
        if isinstance(pixels, str):
            members.setdefault(pixels, []).append(row)
    cluster: list[str | None] = [None] * len(table)
    drop: dict[int, str] = {}
    for name, rows in members.items():
        usable = [row for row in rows if not reasons[row]]
        for row in rows:
            cluster[row] = name
            if usable and row in usable[1:]:
                drop[row] = table["path"].iloc[usable[0]]
    return cluster, drop


def flat(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table as the expectations see it: reasons joined into one text."""
    return table.assign(reasons=["; ".join(reasons) for reasons in table["reasons"]])


def reasons_by_kind(table: "pd.DataFrame") -> dict[str, int]:
    """How many rows each kind of reason refused."""
    kinds = (kind for reasons in table["reasons"] for kind in {kind_of(one) for one in reasons})
    return dict(sorted(Counter(kinds).items()))
