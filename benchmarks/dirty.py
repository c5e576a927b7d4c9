"""A set of files with known faults through ``darkroom check``: is every row handled as its truth allows?

``DARKROOM_REAL_DATA=FOLDER .venv/bin/python benchmarks/dirty.py`` with ``dirty_dev.tar.gz`` in FOLDER, whose
``truth.csv`` names for each file the fault and what is right to do with the row.
"""

import csv
import os
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from darkroom.collect.manifest import collect
from darkroom.quality.check import ask, judge
from darkroom.recipe import Recipe
from darkroom.settings import Settings
from darkroom.store import Store

# What each word of `expected` allows: states of the row.
ALLOWED = {
    "keep": {"kept"}, "drop": {"dropped"}, "drop_duplicate": {"dropped"}, "convert": {"converted"},
    "rotate": {"rotated"}, "flag": {"flagged"}, "fix": {"kept", "flagged"}, "clean": {"mended"}, "redact": {"mended"},
    "truncate": {"mended", "flagged"}, "repair": {"mended", "flagged", "kept"}, "first_frame": {"converted"},
    "ignore": {"absent", "dropped"}, "report_line_and_skip": {"dropped"},
}  # fmt: skip


def main() -> None:
    """Print a line for each kind of fault, and the rows that were not handled as allowed."""
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        root = Path(folder)
        archive = (Settings().real_data or Path()) / "dirty_dev.tar.gz"
        if not archive.is_file():
            sys.exit("set DARKROOM_REAL_DATA to the folder that has dirty_dev.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="fully_trusted")  # hostile names are what it is for; nothing leads out of it
        table = rows(root / "dirty_dev", root)
        wrong, kinds = compare(table, root / "dirty_dev" / "truth.csv")
    print("| fault | expected | rows | as expected |\n|---|---|---:|---:|")
    for (fault, expected), (right, total) in sorted(kinds.items()):
        print(f"| {fault} | {expected} | {total} | {right} |")
    print(f"\n{sum(right for right, _ in kinds.values())} of {sum(total for _, total in kinds.values())} as expected")
    for line in wrong:
        print(f"- {line}")


def rows(pictures: Path, home: Path) -> list[dict[str, Any]]:
    """Every row as check judges it."""
    plan = Recipe.model_validate(
        {
            "version": 1,
            "name": "dirty",
            "collect": {"source": "folder", "path": str(pictures)},
            "model": {"vae": "builtin:digits-vae", "text_encoder": "builtin:digits-text-encoder"},
            "train": {"steps": 1},
        }
    )
    store = Store(home / "store")
    question = ask(collect(plan.collect, store), plan, store)
    table, _, _ = judge(question, None, store, os.cpu_count() or 1, lambda done, total: None)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def states(row: dict[str, Any]) -> set[str]:
    """What happened to a row, in the words of :data:`ALLOWED`."""
    if not row["accepted"]:
        return {"dropped"}
    found = {"kept"}
    converted = [str(one) for one in row["converted"]]
    found |= {"flagged"} if len(row["flags"]) else set()
    found |= {"mended"} if len(row["mended"]) else set()
    found |= {"rotated"} if any("EXIF" in one for one in converted) else set()
    found |= {"converted"} if converted or row["frames"] > 1 else set()
    return found


def compare(table: list[dict[str, Any]], truth: Path) -> tuple[list[str], dict[tuple[str, str], tuple[int, int]]]:
    """(a line for each row that is not as expected, {(fault, expected): (right, all)})."""
    with truth.open(encoding="utf-8", newline="") as file:
        entries = list(csv.DictReader(file))
    by_path: dict[str, list[dict[str, Any]]] = {}
    for row in table:
        by_path.setdefault(row["path"], []).append(row)
        if row["path"].startswith("metadata.jsonl:"):  # lines that name no file go by their number
            for name in ("", "metadata.jsonl"):
                by_path.setdefault(name, []).append(row)
    dropped_groups = Counter[str]()
    for entry in entries:
        if entry["dup_group"] and any("dropped" in states(row) for row in by_path.get(entry["file_name"], [])):
            dropped_groups[entry["dup_group"]] += 1
    kinds: dict[tuple[str, str], tuple[int, int]] = {}
    wrong = []
    for entry in entries:
        found = [states(row) for row in by_path.get(entry["file_name"], [])] or [{"absent"}]
        allowed = set().union(*(ALLOWED[word] for word in entry["expected"].split("_or_")))
        fine = any(one & allowed for one in found)
        # One of a group of copies has to go; which one is the tool's choice.
        if entry["dup_group"] and not fine:
            fine = dropped_groups[entry["dup_group"]] > 0
        right, total = kinds.get((entry["fault"], entry["expected"]), (0, 0))
        kinds[entry["fault"], entry["expected"]] = right + fine, total + 1
        if not fine:
            reasons = [text for row in by_path.get(entry["file_name"], []) for text in row["reasons"]]
            wrong.append(f"{entry['file_name']}: {entry['fault']}, expected {entry['expected']}; {found} {reasons}")
    return wrong, kinds


if __name__ == "__main__":
    main()
