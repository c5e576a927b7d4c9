"""A press that makes manifests and their reports without decoding anything: what versions are made of."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from darkroom.artifacts import CheckedManifest, Checkpoint, Manifest, QualityReport, Shards
from darkroom.collect.manifest import collect, picture_path
from darkroom.quality import releases, removals
from darkroom.quality.check import ask, judge
from darkroom.quality.picture import working_path
from darkroom.quality.split import assign, extend_history
from darkroom.reasons import reason
from darkroom.recipe import Recipe
from darkroom.stages import stage_digest
from darkroom.store import Store, digest_of
from darkroom.versions import log

SEED, SHARE = 0, 0.3


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Shot:
    """A file: ``number`` decides its pixels, with ``copy`` its bytes; ``faults`` are kinds of reason to refuse it."""

    number: int
    caption: str = "a caption"
    faults: tuple[str, ...] = ()
    copy: int = 0
    licence: str = "CC0-1.0"

    @property
    def bytes(self) -> bytes:
        return f"picture {self.number}, file {self.copy}".encode()

    @property
    def id(self) -> str:
        return hashlib.sha256(self.bytes).hexdigest()


@dataclass
class Press:
    """Collects and checks files that are described, not drawn, in the order in which the real check does."""

    store: Store
    dataset: str = "photos"
    rules: dict[str, Any] = field(default_factory=dict)
    checks: int = 0

    def shot(self, number: int, **more: Any) -> Shot:
        """A file; see :class:`Shot`."""
        return Shot(number, **more)

    def files(self, *numbers: int, **more: Any) -> dict[str, Shot]:
        """Files by path, ``03.png`` for number 3."""
        return {f"{number:02d}.png": Shot(number, **more) for number in numbers}

    def row_id(self, path: str) -> str:
        return sha(f"{self.dataset}\0{path}")

    def collect(self, files: Mapping[str, Shot]) -> Manifest:
        """The manifest of these files by path; keeps their bytes as collection does."""
        rows = []
        for path, shot in sorted(files.items()):
            kept = picture_path(self.store, shot.id)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(shot.bytes)
            row = {"row_id": self.row_id(path), "id": shot.id, "path": path, "caption": shot.caption, "label": None}
            rows.append({**row, "licence": shot.licence, "faults": list(shot.faults), "pixels": sha(f"{shot.number}")})
        table = pd.DataFrame(rows).astype({"label": "str"})
        digest = stage_digest("manifest", {}, {"rows": json.loads(table.to_json(orient="values"))})

        def build(work: Path) -> None:
            table.to_parquet(work / "manifest.parquet", index=False)

        return self.store.get_or_build(Manifest, digest, build, inputs={"source": self.dataset})

    def key(self, manifest: Manifest) -> tuple[str, dict[str, Any], list[removals.Removal]]:
        """(the check's key, its inputs, the requests that concern it)."""
        table = pd.read_parquet(manifest.path / "manifest.parquet")
        known = log.versions(self.dataset, self.store)
        past = log.history_of(self.dataset, known[-1].checked if known else None, self.store)
        concerned = removals.concerning(removals.read(self.store), self.dataset, table, past)
        inputs = {
            "manifest": manifest.digest,
            "releases": releases.digest_fields(releases.read(self.dataset, self.store), table),
            "removals": removals.digest_fields(concerned),
        }
        return stage_digest("checked", self.rules, inputs), inputs, concerned

    def check(self, manifest: Manifest, base: str | None, passed: bool = True) -> CheckedManifest:
        """The report of a manifest upon a base."""
        _, inputs, concerned = self.key(manifest)
        inputs |= {"base": base} if base else {}
        digest = stage_digest("checked", self.rules, inputs)
        released = releases.read(self.dataset, self.store)

        def build(work: Path) -> None:
            self.checks += 1
            history = log.history_of(self.dataset, base, self.store)
            table = pd.read_parquet(manifest.path / "manifest.parquet")
            reasons = [[reason("check", kind) for kind in kinds] for kinds in table["faults"]]
            table = table.drop(columns="faults").assign(reasons=reasons, flags=[[] for _ in reasons])
            table = releases.apply(removals.refuse(table, concerned), released)
            for column in ("phash", "dhash", "crops", "descriptor"):
                table[column] = pd.Series([None] * len(table), dtype="str")
            table["working"] = [sha(f"working {picture}") for picture in table["id"]]
            for key in table["working"]:
                copy = working_path(self.store.root, key)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(b"working copy")
            names = list(table["pixels"])
            table = removals.refuse_copies(table, names, {}, concerned, history)
            sides = assign(table, names, {}, history, SEED, SHARE)
            table = table.assign(duplicate_cluster=names, split=pd.Series(sides.side, dtype="str"))
            kept: set[str] = set()
            for position, name in enumerate(names):
                if not table["reasons"][position]:
                    if name in kept:
                        table.at[position, "reasons"] = [reason("check", "duplicate", "of another")]
                    kept.add(name)
            table = releases.apply(table, released)
            accepted = table["reasons"].map(len) == 0
            table[accepted].drop(columns="reasons").to_parquet(work / "checked.parquet", index=False)
            table[~accepted].to_parquet(work / "quarantine.parquet", index=False)
            extend_history(history, table[accepted], sides.joined, SEED).to_parquet(work / "history.parquet")
            summary = {"passed": passed, "rows": len(table), "accepted": int(accepted.sum()), "docs": "index.html"}
            summary |= {"quarantined": int((~accepted).sum()), "reasons": {}, "findings": []}
            (work / "summary.json").write_text(json.dumps(summary))

        made = self.store.get_or_build(QualityReport, digest, build, inputs=inputs, fields=self.rules)
        log.note(self.dataset, made, self.store)
        return CheckedManifest(made.digest, made.path, made.reused)

    def version(self, files: Mapping[str, Shot]) -> log.Version:
        """Collect, check and accept these files."""
        manifest = self.collect(files)
        key, _, _ = self.key(manifest)
        return log.settle(self.dataset, key, self.store, lambda base: self.check(manifest, base))[1]

    def train(self, version: log.Version) -> tuple[str, str]:
        """Digests of shards made of a version, and of a checkpoint made of these."""
        shards, checkpoint = sha(f"shards {version.checked}"), sha(f"checkpoint {version.checked}")
        self.store.get_or_build(Shards, shards, lambda work: None, inputs={"checked": version.checked})

        def build(work: Path) -> None:
            (work / "recipe.json").write_text(json.dumps({"name": "painter"}))

        self.store.get_or_build(Checkpoint, checkpoint, build, inputs={"shards": shards})
        return shards, checkpoint


@pytest.fixture
def press(tmp_path: Path) -> Press:
    """A press with an empty store, where the settings' home would have it."""
    return Press(Store(tmp_path / "mlruns" / "store"))


def _recipe_for(photos: Path, **sections: Any) -> Recipe:
    """A recipe over a folder of pictures, with the built-in parts; sections are given as mappings."""
    parts = {
        "version": 1,
        "name": "photos",
        "collect": {"source": "folder", "path": str(photos)},
        "model": {"vae": "builtin:digits-vae", "text_encoder": "builtin:digits-text-encoder"},
        "preprocess": {"size": 16},
        "train": {"steps": 1},
        **sections,
    }
    return Recipe.model_validate(parts)


def _judged(photos: Path, store: Store, **sections: Any) -> pd.DataFrame:
    """Every row of a folder as check judges it, before the expectations."""
    plan = _recipe_for(photos, **sections)
    question = ask(collect(plan.collect, store), plan, store)
    return judge(question, None, store, 1, lambda done, total: None)[0]


def _accepted_rows(photos: Path, store: Store, **sections: Any) -> CheckedManifest:
    """The accepted rows as an artifact, past the expectations, which have tests of their own."""
    table = _judged(photos, store, **sections)

    def build(work: Path) -> None:
        table[table["accepted"]].drop(columns=["reasons", "accepted"]).to_parquet(work / "checked.parquet")

    rows = table[["row_id", "id", "caption"]].astype(object).where(lambda frame: frame.notna(), None).values.tolist()
    return store.get_or_build(CheckedManifest, digest_of([rows, sections]), build, inputs={})


@pytest.fixture
def recipe_for() -> Callable[..., Recipe]:
    """See :func:`_recipe_for`."""
    return _recipe_for


@pytest.fixture
def judged() -> Callable[..., pd.DataFrame]:
    """See :func:`_judged`."""
    return _judged


@pytest.fixture
def accepted_rows() -> Callable[..., CheckedManifest]:
    """See :func:`_accepted_rows`."""
    return _accepted_rows
