"""Everything asked of or told to MLflow: runs, their curves, and the versions of a model.

Each call may be repeated, also after a kill: what MLflow has already is found by a tag (the key of a run, the digest of
a checkpoint) and completed, never doubled. The last thing that registering writes is the version itself, with its tags
in the same request, so a version that exists is whole. Two processes that do the same at the same time are kept apart
by the caller (:meth:`darkroom.store.Store.lock`).

MLflow's global state is left alone: the address is passed with every request.
"""

import contextlib
import functools
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from ._registry import (
    CHECKPOINT,
    ENVIRONMENT,
    Allow,
    Dataset,
    RegisteredModel,
    Version,
    chunks,
    cut,
    flatten,
    milliseconds,
    plain,
    read_events,
    read_version,
    unavailable,
)
from ._registry_database import create_database
from ._registry_model import index_of, save_model
from ._registry_prune import Attempt, attempts, forget, models, remove
from .errors import DarkroomError, RecipeError, ServiceUnavailable
from .secrets import hidden, split, without_secret

__all__ = ["Attempt", "Dataset", "Registry", "Version"]

P = ParamSpec("P")
T = TypeVar("T")

RUN_KEY = "darkroom.key"
NON_FINITE = "darkroom.non_finite_values"
GRIDS = "samples"  # the key under which MLflow's page shows the sample grids

# MLflow's own limits.
PARAM_LENGTH, PARAMS_A_BATCH, METRICS_A_BATCH, DATASET_DIGEST = 6000, 100, 1000, 36
DESCRIPTION = 5000  # characters of a model's


def _asks(method: Callable[P, T]) -> Callable[P, T]:
    """A method that asks MLflow: a server that does not answer becomes :class:`ServiceUnavailable`."""

    @functools.wraps(method)
    def asking(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except DarkroomError:
            raise
        except Exception as error:
            reason, registry = unavailable(error), args[0]
            if reason is None or not isinstance(registry, Registry):
                raise
            raise ServiceUnavailable(
                f"MLflow at {registry.shown} {reason}; then run the same command again. "
                f"It said: {registry.hidden(str(error))[:300]}"
            ) from error

    return asking


class Registry:
    """MLflow at one address, seen from one experiment."""

    def __init__(
        self,
        tracking_uri: str,
        artifacts: Path,
        experiment: str,
        server: str | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        """``artifacts``: where artifacts lie when MLflow is a SQLite file, else the cache of what is downloaded.

        ``server``: a server on the same database, which answers questions about versions without MLflow's import.
        ``login``: user and password of whichever server is asked. ``uri`` has the password of a database; ``shown``
        is what people may see of it.
        """
        self.uri, self.shown, self._login = tracking_uri, without_secret(tracking_uri), login
        self._password = split(tracking_uri)[1]
        self.server = server
        self.artifacts = artifacts.absolute()
        self.experiment = experiment
        self._known: dict[str, dict[str, set[int]]] = {}  # run -> metric -> steps that MLflow has

    @functools.cached_property
    def _client(self) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._login and self.uri.startswith(("http://", "https://")):
            for name, value in zip(("USERNAME", "PASSWORD"), self._login, strict=True):
                os.environ.setdefault(f"MLFLOW_TRACKING_{name}", value)
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        if self._local:
            create_database(Path(self.uri.removeprefix("sqlite:///")).absolute(), self.artifacts)
        try:
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        except MlflowException as error:
            raise RecipeError(
                f"{self.shown!r} is no address of an MLflow: set DARKROOM_MLFLOW_URI to http(s)://HOST:PORT or to "
                f"sqlite:///PATH, or leave it unset. MLflow said: {self.hidden(str(error))}"
            ) from None

    def _read(self, question: Callable[[Any], T]) -> T:
        """Put a question about versions to the server if there is one, else to MLflow's own client."""
        if self.server is not None:
            import httpx

            with contextlib.suppress(httpx.HTTPError):  # it has just ended: the database is still there
                return question(self._reader)
        return question(self._client)

    @functools.cached_property
    def _reader(self) -> Any:
        from ._registry_rest import Reader

        return Reader(str(self.server), self._login)

    def hidden(self, text: str) -> str:
        """A text of MLflow's without our passwords, should it have them."""
        return hidden(text, self._password, *(self._login or ())[1:])

    @property
    def local(self) -> bool:
        """Whether MLflow is a SQLite file of this machine, whose artifacts lie here, too."""
        return self._local

    @property
    def _local(self) -> bool:
        return self.uri.startswith("sqlite:///")

    @_asks
    def ping(self) -> None:
        """Raise :class:`ServiceUnavailable` unless MLflow answers."""
        self._client.search_experiments(max_results=1)

    # Runs

    @functools.cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            # A server decides itself where artifacts lie.
            place = (self.artifacts / self.experiment).as_uri() if self._local else None
            with Allow("RESOURCE_ALREADY_EXISTS"):  # another process may have been faster
                return str(self._client.create_experiment(self.experiment, artifact_location=place))
            found = self._client.get_experiment_by_name(self.experiment)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    @_asks
    def open_run(
        self,
        key: str,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str] | None = None,
        dataset: Dataset | None = None,
    ) -> str:
        """The id of the run with this key, created when there is none; one that was not finished goes on.

        The parameters are logged once: as ``recipe.json``, and one by one under dotted names, cut to MLflow's limit.
        """
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`{RUN_KEY}` = '{key}'", max_results=1, order_by=["attributes.start_time ASC"]
        )
        run = (
            found[0]
            if found
            else self._client.create_run(
                self._experiment_id,
                run_name=name,
                tags={"mlflow.source.name": "darkroom", **(tags or {}), RUN_KEY: key},
            )
        )
        run_id = str(run.info.run_id)
        if run.info.status not in ("RUNNING", "FINISHED"):
            self._client.update_run(run_id, status="RUNNING")
        self._log_params(run, params)
        if dataset is not None:
            self._log_dataset(run, dataset)
        return run_id

    def _log_params(self, run: Any, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        table = plain(dict(params))
        lacking = {key: text for key, text in flatten(table).items() if key not in run.data.params}
        if lacking:
            self._client.log_dict(run.info.run_id, table, "recipe.json")
        for items in chunks(list(lacking.items()), PARAMS_A_BATCH):
            batch = [Param(key, cut(text, PARAM_LENGTH)) for key, text in items]
            self._client.log_batch(run.info.run_id, params=batch)

    def _log_dataset(self, run: Any, dataset: Dataset) -> None:
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag

        digest = dataset.digest[:DATASET_DIGEST]
        inputs = run.inputs.dataset_inputs if run.inputs else []
        if any((known.dataset.name, known.dataset.digest) == (dataset.name, digest) for known in inputs):
            return
        profile = json.dumps({"num_rows": dataset.rows, **dataset.profile})
        entity = Entity(dataset.name, digest, "local", json.dumps({"uri": dataset.source}), profile=profile)
        tags = [InputTag("mlflow.data.context", "training"), InputTag("darkroom.digest", dataset.digest)]
        self._client.log_inputs(run.info.run_id, datasets=[DatasetInput(entity, tags)])

    @_asks
    def log_events(self, run_id: str, events: Path) -> int:
        """Log the lines of ``events.jsonl`` that MLflow lacks; returns how many values and grids were added.

        A line is ``{"step": 10, "metrics": {"loss": 0.1}}`` or ``{"step": 10, "grid": "grids/000010.png"}``, with
        ``"time"`` (seconds since 1970) where known. A step that MLflow has keeps its first value: a resumed training
        writes the same ones again. Values that are not finite are left out and counted in a tag of the run.
        """
        from mlflow.entities import Metric
        from PIL import Image

        points, grids, non_finite = read_events(events)
        known = self._known.pop(run_id, None) or self._steps_in_mlflow(run_id)
        lacking = [point for point in points if point.step not in known.get(point.name, ())]
        for batch in chunks(lacking, METRICS_A_BATCH):
            metrics = [Metric(point.name, point.value, point.milliseconds, point.step) for point in batch]
            self._client.log_batch(run_id, metrics=metrics)
        for point in lacking:
            known.setdefault(point.name, set()).add(point.step)
        new = {step: path for step, path in grids.items() if step not in known.setdefault("", set())}
        for step, path in new.items():
            with Image.open(path) as picture:
                self._client.log_image(run_id, picture, key=GRIDS, step=step)
        known[""].update(new)
        if non_finite:
            self._client.set_tag(run_id, NON_FINITE, str(non_finite))
        # Kept only now: after a failure half-way the next call asks MLflow what arrived.
        self._known[run_id] = known
        return len(lacking) + len(new)

    def _steps_in_mlflow(self, run_id: str) -> dict[str, set[int]]:
        """The steps that MLflow has of each metric, and under "" those of the grids."""
        names = self._client.get_run(run_id).data.metrics
        known = {name: {point.step for point in self._client.get_metric_history(run_id, name)} for name in names}
        # The small copy that the page shows is written last; a grid without it is logged again.
        paths = [file.path for file in self._client.list_artifacts(run_id, "images")]
        steps = (re.search(rf"/{GRIDS}[+%]step[+%](\d+)[+%].*compressed\.webp$", path) for path in paths)
        return known | {"": {int(step[1]) for step in steps if step}}

    @_asks
    def close_run(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status)

    @_asks
    def run(self, run_id: str) -> dict[str, Any]:
        """All that MLflow knows of a run, as plain values: info, data (params, metrics, tags), inputs, outputs."""
        found: dict[str, Any] = self._client.get_run(run_id).to_dictionary()
        return found

    @_asks
    def attempts(self) -> list[Attempt]:
        """The runs of all experiments that never became a version; see :mod:`darkroom._registry_prune`."""
        return list(attempts(self._client))

    @_asks
    def forget(self, attempt: Attempt) -> None:
        """Mark an attempt as deleted, before its files are."""
        forget(self._client, attempt)

    @_asks
    def remove(self, attempt: Attempt) -> None:
        """Remove all that a database of ours has of a forgotten attempt; a server keeps that until its own cleaning."""
        if self._local:
            remove(self._client, attempt)

    @_asks
    def artifact(self, run_id: str, path: str) -> bytes | None:
        """A file among the artifacts of a run; None where there is none, or where it cannot be read from here."""
        folder = Path(path).parent.as_posix()
        if path not in [file.path for file in self._client.list_artifacts(run_id, None if folder == "." else folder)]:
            return None
        with tempfile.TemporaryDirectory(prefix="darkroom-") as target:
            return Path(self._client.download_artifacts(run_id, path, target)).read_bytes()

    # Versions

    @_asks
    def models(self) -> list[str]:
        """The names of all registered models, of other programs, too."""
        return models(self._client)

    @_asks
    def versions(self, model: str) -> list[Version]:
        """All versions of a model, the newest first; none of a model that is not registered."""
        return self._search(f"name = '{model}'")

    @_asks
    def version_of(self, model: str, checkpoint: str) -> Version | None:
        """The version that has this checkpoint, if it was registered."""
        found = self._search(f"name = '{model}' and tags.`{CHECKPOINT}` = '{checkpoint}'")
        return found[-1] if found else None

    def _search(self, condition: str) -> list[Version]:
        found = self._read(lambda mlflow: mlflow.search_model_versions(condition, max_results=1000))
        # The search answers without aliases.
        versions = [self._get(each.name, each.version) for each in found]
        return sorted(versions, key=lambda version: int(version.version), reverse=True)

    def _get(self, model: str, version: str) -> Version:
        return self._read(lambda mlflow: read_version(mlflow.get_model_version(model, version)))

    @_asks
    def with_alias(self, model: str, alias: str) -> Version | None:
        """The version that an alias points to, if there is such an alias."""
        with Allow("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return self._read(lambda mlflow: read_version(mlflow.get_model_version_by_alias(model, alias)))
        return None

    @_asks
    def model(self, name: str) -> RegisteredModel | None:
        """A model's aliases and tags, in one request; None of a model that is not registered."""
        with Allow("RESOURCE_DOES_NOT_EXIST"):
            found = self._read(lambda mlflow: mlflow.get_registered_model(name))
            aliases = {alias: str(version) for alias, version in found.aliases.items()}
            return RegisteredModel(found.name, aliases, dict(found.tags))
        return None

    @_asks
    def tag_model(self, name: str, key: str, value: str) -> None:
        """Write a tag on a model's own page."""
        self._client.set_registered_model_tag(name, key, value)

    @_asks
    def resolve(self, reference: str) -> Version:
        """The version that ``digits@champion``, ``digits/3`` or ``models:/digits/3`` names.

        Raises :class:`RecipeError` that says what there is instead.
        """
        match = re.fullmatch(r"(?:models:/)?([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
        if match is None:
            raise RecipeError(f"{reference!r} names no version of a model: write NAME@champion or NAME/3")
        model, alias, number = match.groups()
        if alias:
            found = self.with_alias(model, alias)
        else:
            found = next((version for version in self.versions(model) if version.version == number), None)
        if found is None:
            raise RecipeError(f"there is no {reference!r} in MLflow at {self.shown}: {self._what_there_is(model)}")
        return found

    def _what_there_is(self, model: str) -> str:
        versions = self.versions(model)
        if versions:
            names = [
                " = ".join([f"{model}/{one.version}", *(f"{model}@{alias}" for alias in one.aliases)])
                for one in versions
            ]
            return f"it has {', '.join(names[:10])}" + (f" and {len(names) - 10} older ones" if len(names) > 10 else "")
        models = sorted(found.name for found in self._client.search_registered_models(max_results=100))
        return f"its models are {', '.join(models)}" if models else "it has no models yet; `darkroom run` registers one"

    @_asks
    def register(
        self,
        model: str,
        run_id: str,
        pipeline: Path,
        *,
        checkpoint: str,
        tags: Mapping[str, str] | None = None,
        description: str = "",
        model_description: str = "",
        metrics: Mapping[str, float] | None = None,
        artifacts: Mapping[str, Path] | None = None,
    ) -> Version:
        """The version of this checkpoint, made from its pipeline when there is none.

        ``artifacts``: files and folders for the run, by their name there. ``description`` is the version's text,
        ``model_description`` the one of the model's page.
        """
        with Allow("RESOURCE_ALREADY_EXISTS"):
            self._client.create_registered_model(model)
        known = self._client.get_registered_model(model).description or ""
        if model_description and not known.startswith(model_description):  # its history may stand behind it
            self._client.update_registered_model(model, model_description)
        found = self.version_of(model, checkpoint)
        if found is not None:
            return found
        logged = self._logged_model(model, run_id, pipeline, checkpoint)
        self.log_results(run_id, logged.model_id, metrics or {}, artifacts or {})
        made = self._client.create_model_version(
            model,
            source=logged.artifact_location,
            run_id=run_id,
            tags={**(tags or {}), CHECKPOINT: checkpoint},
            description=description,
            model_id=logged.model_id,
        )
        return self._get(model, made.version)

    def _logged_model(self, model: str, run_id: str, pipeline: Path, checkpoint: str) -> Any:
        """The run's logged model with this checkpoint, whole; one that a killed attempt left is completed."""
        from mlflow.entities import LoggedModelOutput

        found = self._client.search_logged_models(
            [self._experiment_id], f"tags.`{CHECKPOINT}` = '{checkpoint}' and source_run_id = '{run_id}'", max_results=1
        )
        logged = (
            found[0]
            if found
            else self._client.create_logged_model(
                self._experiment_id,
                name=model,
                source_run_id=run_id,
                tags={CHECKPOINT: checkpoint},
                model_type="diffusers",
            )
        )
        if str(logged.status) != "READY":
            self.artifacts.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.artifacts, prefix=".model-") as folder:
                save_model(Path(folder) / "model", logged, run_id, pipeline)
                self._client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
            # From where it lies: through MLflow's own way the weights would be copied three times.
            self._client.log_model_artifacts(logged.model_id, str(pipeline), "artifacts/pipeline")
            logged = self._client.finalize_logged_model(logged.model_id, "READY")
        outputs = self._client.get_run(run_id).outputs
        if logged.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
            self._client.log_outputs(run_id, models=[LoggedModelOutput(logged.model_id, step=0)])
        return logged

    @_asks
    def log_results(
        self, run_id: str, model_id: str | None, metrics: Mapping[str, float], artifacts: Mapping[str, Path]
    ) -> None:
        """Append metrics to a run and its model, each unless its last point has this value, and copy artifacts."""
        from mlflow.entities import Metric

        points = []
        for name, value in metrics.items():
            last = max(self._client.get_metric_history(run_id, name), key=lambda point: point.step, default=None)
            if math.isfinite(value) and (last is None or last.value != value):
                step = 0 if last is None else last.step + 1
                points.append(Metric(name, float(value), milliseconds(None), step, model_id=model_id, run_id=run_id))
        for batch in chunks(points, METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=batch)
        for name, path in artifacts.items():
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), name)
                continue
            with tempfile.TemporaryDirectory() as folder:  # MLflow takes the name of the file that it is given
                link = Path(folder) / Path(name).name
                link.symlink_to(path.absolute())
                self._client.log_artifact(run_id, str(link), str(Path(name).parent) if Path(name).parent.name else None)

    @_asks
    def append(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Append a point to each of these curves of a run, all at one step and now; what is not finite is left out."""
        from mlflow.entities import Metric

        known = self._client.get_run(run_id).data.metrics
        last = max((p.step for name in known for p in self._client.get_metric_history(run_id, name)), default=-1)
        now = milliseconds(None)
        points = [Metric(name, float(value), now, last + 1) for name, value in metrics.items() if math.isfinite(value)]
        for batch in chunks(points, METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=batch)

    @_asks
    def annotate(
        self,
        version: Version,
        *,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        metrics: Mapping[str, float] | None = None,
        artifacts: Mapping[str, Path] | None = None,
    ) -> Version:
        """Add what a later evaluation found to a version and its run; returns the version as it is now."""
        model_id = self._client.get_model_version(version.model, version.version).model_id
        self.log_results(version.run_id, model_id, metrics or {}, artifacts or {})
        for key, value in (tags or {}).items():
            if version.tags.get(key) != value:
                self._client.set_model_version_tag(version.model, version.version, key, value)
        if description is not None and description != version.description:
            self._client.update_model_version(version.model, version.version, description)
        return self._get(version.model, version.version)

    @_asks
    def describe(self, model: str, mark: str, words: str) -> None:
        """Put ``words``, which begin with ``mark``, at the end of a model's description, in the place of older ones."""
        known = self._client.get_registered_model(model).description or ""
        own = known.partition(mark)[0].rstrip()
        text = f"{own}\n\n{words}".lstrip() if own else words
        if text != known:
            self._client.update_registered_model(model, cut(text, DESCRIPTION))

    @_asks
    def set_alias(self, version: Version, alias: str) -> Version:
        """Point an alias to a version, away from any other; returns the version as it is now."""
        if alias not in version.aliases or self.with_alias(version.model, alias) != version:
            self._client.set_registered_model_alias(version.model, alias, version.version)
        return self._get(version.model, version.version)

    @_asks
    def delete_alias(self, model: str, alias: str) -> None:
        """Take an alias away; nothing happens when there is none."""
        with Allow("RESOURCE_DOES_NOT_EXIST"):
            self._client.delete_registered_model_alias(model, alias)

    @_asks
    def model_folder(self, version: Version) -> Path:
        """The folder of a version's MLflow model on this machine, downloaded once when it lies elsewhere."""
        from mlflow.artifacts import download_artifacts

        source = self._client.get_model_version_download_uri(version.model, version.version)
        parts = urlsplit(source)
        if parts.scheme in ("", "file"):
            folder = Path(unquote(parts.path) if parts.scheme else source)
            if not (folder / "MLmodel").is_file():
                raise DarkroomError(
                    f"the files of {version.uri} are not in {folder}: MLflow keeps absolute paths, so move the home "
                    "folder back to where it was, or run the recipe again in a new one"
                )
            return folder
        place = self.artifacts / "downloads" / version.model / f"{version.version}-{Path(parts.path).parent.name}"
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            work = tempfile.mkdtemp(dir=place.parent, prefix=".")
            try:
                got = download_artifacts(source, dst_path=work, tracking_uri=self.uri, registry_uri=self.uri)
                with contextlib.suppress(OSError):  # another process was faster
                    os.replace(got, place)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return place

    def pipeline_folder(self, version: Version) -> Path:
        """The diffusers pipeline of a version on this machine, or its autoencoder."""
        folder = self.model_folder(version) / "artifacts" / "pipeline"
        if not (folder / index_of(folder)).is_file():
            raise RecipeError(f"{version.uri} holds no diffusers pipeline: name a version that darkroom registered")
        return folder

    def load(self, version: Version) -> Any:
        """A version as MLflow's pyfunc model: ``.predict({"prompt": [...]}, params={"seed": 1})``."""
        folder = self.model_folder(version)
        from mlflow.pyfunc import load_model

        return load_model(str(folder))
