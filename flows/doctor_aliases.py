"""What an alias needs in MLflow and no longer has: a version, its run, its files. For `darkroom doctor`.

MLflow lets all of these be deleted without a word: a deleted version takes its alias along, a deleted run hides what
the version was made of until `mlflow gc` removes it for good, and files go with either. It is asked without being
imported, by its database file or over its REST API, and nothing is written.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from darkroom.history import CHAMPION
from darkroom.settings import Settings

ALIASES = ("champion", "challenger")
BACK = "`darkroom promote {model} VERSION` makes another version champion"


@dataclass(frozen=True)
class Model:
    """A registered model: its versions by alias, and the champion that darkroom knows of."""

    name: str
    aliases: dict[str, str]
    champion: str | None


@dataclass(frozen=True)
class Version:
    """Where the files of a version lie, and the run that made it."""

    source: str
    run_id: str


class Source(Protocol):
    """A way to ask MLflow."""

    def models(self) -> list[Model]:
        """All registered models."""

    def version(self, model: str, version: str) -> Version | None:
        """A version; None where there is none."""

    def run(self, run_id: str) -> str | None:
        """active or deleted; None for a run that is gone."""


def lost(settings: Settings) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) of every alias that lacks something."""
    import httpx

    with _asked(settings) as source:
        if source is None:
            return
        with contextlib.suppress(httpx.ConnectError):  # a server that does not answer is a finding of its own
            for model in source.models():
                yield from _of_model(source, model)


def _of_model(source: Source, model: Model) -> Iterator[tuple[str, str]]:
    back = BACK.format(model=model.name)
    if model.champion and "champion" not in model.aliases:
        there = source.version(model.name, model.champion) is not None
        what = "whose alias was taken away" if there else "which was deleted in MLflow"
        remedy = f"`darkroom promote {model.name} {model.champion}` gives it back" if there else back
        yield f"{model.name} has no champion any more: it was version {model.champion}, {what}", remedy
    for alias in ALIASES:
        number = model.aliases.get(alias)
        if number is None:
            continue
        who = f"{model.name}@{alias} (version {number})"
        version = source.version(model.name, number)
        if version is None:
            yield f"{who} points to a version that is not in MLflow any more", back
            continue
        if version.run_id:
            yield from _of_run(source.run(version.run_id), who, version.run_id)
        folder = _local(version.source)
        if folder is not None and not (folder / "MLmodel").is_file():
            yield f"{who} cannot be loaded: its files are not in {folder}", f"put them back from a backup, or {back}"


def _of_run(state: str | None, who: str, run_id: str) -> Iterator[tuple[str, str]]:
    if state == "deleted":
        remedy = f"`mlflow runs restore --run-id {run_id}`, before `mlflow gc` removes it with its files for good"
        yield f"{who} was made by run {run_id}, which was deleted in MLflow", remedy
    elif state is None:
        remedy = "it can still be served, not explained or made again: run its recipe again"
        yield f"{who} was made by run {run_id}, which is gone from MLflow with its measures and recipe", remedy


def _local(source: str) -> Path | None:
    """The folder of a version's files where it is one of this machine."""
    parts = urlsplit(source)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(source) if not parts.scheme and source.startswith("/") else None


@contextlib.contextmanager
def _asked(settings: Settings) -> Iterator[Source | None]:
    uri = settings.tracking_uri
    if uri.startswith(("http://", "https://")):
        yield _Rest(uri.rstrip("/"), settings.mlflow_login)
        return
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not uri.startswith("sqlite:///") or not path.is_file():
        yield None
        return
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
        yield _Database(database)


class _Database:
    """MLflow's SQLite file."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def models(self) -> list[Model]:
        aliases: dict[str, dict[str, str]] = {
            str(name): {} for (name,) in self._ask("SELECT name FROM registered_models ORDER BY name")
        }
        for name, alias, version in self._ask("SELECT name, alias, version FROM registered_model_aliases"):
            aliases[name][alias] = str(version)
        known = dict(self._ask("SELECT name, value FROM registered_model_tags WHERE key = ?", CHAMPION))
        return [Model(name, found, _known(known.get(name))) for name, found in aliases.items()]

    def version(self, model: str, version: str) -> Version | None:
        found = self._ask(
            "SELECT COALESCE(storage_location, source), run_id FROM model_versions "
            "WHERE name = ? AND version = ? AND current_stage <> 'Deleted_Internal'",
            *(model, version),
        )
        return Version(str(found[0][0] or ""), str(found[0][1] or "")) if found else None

    def run(self, run_id: str) -> str | None:
        found = self._ask("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", run_id)
        return str(found[0][0]) if found else None

    def _ask(self, query: str, *values: str) -> list[Any]:
        return self._database.execute(query, values).fetchall()


class _Rest:
    """An MLflow server."""

    def __init__(self, server: str, login: tuple[str, str] | None) -> None:
        import httpx

        name, word = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        given = (name, word) if name else login
        auth = httpx.BasicAuth(*given) if given else None
        self._http = httpx.Client(base_url=f"{server}/api/2.0/mlflow/", timeout=10.0, trust_env=False, auth=auth)

    def models(self) -> list[Model]:
        found, token = [], ""
        while True:
            page = self._ask("registered-models/search", max_results="100", page_token=token) or {}
            for one in page.get("registered_models", ()):
                aliases = {alias["alias"]: str(alias["version"]) for alias in one.get("aliases", ())}
                tags = {tag["key"]: tag.get("value", "") for tag in one.get("tags", ())}
                found.append(Model(one["name"], aliases, _known(tags.get(CHAMPION))))
            token = page.get("next_page_token", "")
            if not token:
                return found

    def version(self, model: str, version: str) -> Version | None:
        found = self._ask("model-versions/get", name=model, version=version)
        one = found["model_version"] if found else {}
        return Version(str(one.get("source", "")), str(one.get("run_id", ""))) if found else None

    def run(self, run_id: str) -> str | None:
        found = self._ask("runs/get", run_id=run_id)
        return str(found["run"]["info"]["lifecycle_stage"]) if found else None

    def _ask(self, path: str, **query: str) -> Any:
        answer = self._http.get(path, params={key: value for key, value in query.items() if value})
        if answer.status_code == 404 and "RESOURCE_DOES_NOT_EXIST" in answer.text:
            return None
        answer.raise_for_status()
        return answer.json()


def _known(tag: str | None) -> str | None:
    """The version that darkroom knows as the champion."""
    return str(json.loads(tag)["version"]) if tag else None
