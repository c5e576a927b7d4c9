"""The registry's bookkeeping against a real MLflow on SQLite: every call may be repeated, nothing is doubled."""

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom import process
from darkroom.errors import DarkroomError, RecipeError, ServiceUnavailable
from darkroom.registry import Dataset, Registry, Version
from darkroom.settings import Settings
from flows.doctor_aliases import lost

CHECKPOINT = "c" * 64
DATA = Dataset("digits", "d" * 64, "store/checked/dddd", 1797, {"quarantined": 3})


class Killed(BaseException):
    """Stands in for SIGKILL: nothing may catch it."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def database(home: Path) -> str:
    """One database for the module: making one takes MLflow seconds."""
    uri = f"sqlite:///{home / 'mlflow.db'}"
    Registry(uri, home / "artifacts", "first").ping()
    return uri


@pytest.fixture
def again(database: str, home: Path, request: pytest.FixtureRequest) -> Any:
    """Each call gives the registry as a new process sees it, in an experiment of this test."""
    return lambda: Registry(database, home / "artifacts", str(request.node.name))


@pytest.fixture
def registry(again: Any) -> Registry:
    found: Registry = again()
    return found


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model's name that belongs to this test."""
    return str(request.node.name).replace("_", "-")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the registry sees of a pipeline; it never looks into the weights."""
    folder = tmp_path_factory.mktemp("checkpoint") / "pipeline"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(b"\1" * 1000)
    return folder


def points(registry: Registry, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in registry._client.get_metric_history(run_id, name))


def write(events: Path, lines: list[dict[str, Any]], tail: str = "") -> None:
    events.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)


def test_importing_the_registry_does_not_import_mlflow() -> None:
    code = "import sys, darkroom.registry; sys.exit('mlflow' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_one_key_is_one_run(again: Any) -> None:
    params = {"train": {"steps": 8, "prompts": ["a", "b"]}, "long": "x" * 9000}
    first = again().open_run("key", "digits", params, {"darkroom.source": "test"}, DATA)
    assert again().open_run("key", "digits", params | {"more": True}, None, DATA) == first
    assert again().open_run("other key", "digits", {}) != first

    run = again().run(first)
    logged = run["data"]["params"]
    assert logged["train.steps"] == "8"
    assert logged["train.prompts"] == '["a", "b"]'
    assert logged["more"] == "true"
    assert len(logged["long"]) == 6000
    assert logged["long"].endswith("…")
    assert run["data"]["tags"]["darkroom.source"] == "test"
    (data,) = run["inputs"]["dataset_inputs"]
    assert data["dataset"]["digest"] == DATA.digest[:36]
    assert data["tags"]["darkroom.digest"] == DATA.digest
    assert json.loads(data["dataset"]["profile"]) == {"num_rows": 1797, "quarantined": 3}
    recipe = Path(run["info"]["artifact_uri"].removeprefix("file://")) / "recipe.json"
    assert json.loads(recipe.read_text()) == params | {"more": True}


def test_a_kill_while_the_database_is_made_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom darkroom.registry import Registry\n"
        "Registry(f'sqlite:///{sys.argv[1]}/mlflow.db', Path(sys.argv[1]) / 'artifacts', 'x').ping()"
    )
    maker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    new = tmp_path / ".mlflow.db.new"
    end = time.monotonic() + 60
    while not (new.exists() and new.stat().st_size > 40_000):  # some tables of many
        assert maker.poll() is None
        assert time.monotonic() < end
    maker.kill()
    maker.wait()
    assert not (tmp_path / "mlflow.db").exists()
    Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts", "x").ping()
    assert not new.exists()


def test_an_interrupted_run_goes_on_and_a_finished_one_stays_finished(registry: Registry) -> None:
    run_id = registry.open_run("key", "digits", {})
    for status, then in (("FAILED", "RUNNING"), ("KILLED", "RUNNING"), ("FINISHED", "FINISHED")):
        registry.close_run(run_id, status)
        registry.open_run("key", "digits", {})
        assert registry.run(run_id)["info"]["status"] == then


def test_events_are_logged_once(again: Any, tmp_path: Path) -> None:
    registry = again()
    run_id = registry.open_run("key", "digits", {})
    events = tmp_path / "events.jsonl"
    assert registry.log_events(run_id, events) == 0  # not there yet
    lines = [{"step": step, "metrics": {"loss": 1 / (step + 1), "rate": 0.5}} for step in range(700)]
    write(events, lines, tail='{"step": 700, "metr')
    assert registry.log_events(run_id, events) == 1400
    assert registry.log_events(run_id, events) == 0
    assert again().log_events(run_id, events) == 0

    # A resumed training: cut back, then the same values again and more.
    write(events, lines[:300])
    assert registry.log_events(run_id, events) == 0
    write(events, [*lines, {"step": 700, "metrics": {"loss": 0.0}, "time": 1000.5}])
    assert again().log_events(run_id, events) == 1
    assert points(registry, run_id, "loss") == [(step, 1 / (step + 1)) for step in range(700)] + [(700, 0.0)]
    assert 1000500 in [point.timestamp for point in registry._client.get_metric_history(run_id, "loss")]


def test_values_that_are_not_finite_are_counted_instead(registry: Registry, tmp_path: Path) -> None:
    run_id = registry.open_run("key", "digits", {})
    values = [1.0, float("nan"), None, float("-inf")]
    write(tmp_path / "events.jsonl", [{"step": step, "metrics": {"loss": value}} for step, value in enumerate(values)])
    for _ in range(2):
        registry.log_events(run_id, tmp_path / "events.jsonl")
        assert points(registry, run_id, "loss") == [(0, 1.0)]
        assert registry.run(run_id)["data"]["tags"]["darkroom.non_finite_values"] == "3"


def test_a_kill_while_logging_loses_and_doubles_nothing(
    again: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = again()
    run_id = registry.open_run("key", "digits", {})
    write(tmp_path / "events.jsonl", [{"step": step, "metrics": {"loss": float(step)}} for step in range(2500)])
    log_batch, calls = registry._client.log_batch, iter([None, Killed()])

    def killed_at_the_second(*args: Any, **kwargs: Any) -> None:
        log_batch(*args, **kwargs)
        if stop := next(calls):
            raise stop  # after the server took it: the worst moment

    monkeypatch.setattr(registry._client, "log_batch", killed_at_the_second)
    with pytest.raises(Killed):
        registry.log_events(run_id, tmp_path / "events.jsonl")
    monkeypatch.undo()
    assert registry.log_events(run_id, tmp_path / "events.jsonl") == 500
    assert points(registry, run_id, "loss") == [(step, float(step)) for step in range(2500)]


def test_grids_are_logged_once(again: Any, tmp_path: Path) -> None:
    registry = again()
    run_id = registry.open_run("key", "digits", {})
    (tmp_path / "grids").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "grids" / "10.png")
    write(tmp_path / "events.jsonl", [{"step": step, "grid": f"grids/{step}.png"} for step in (10, 20)])
    assert registry.log_events(run_id, tmp_path / "events.jsonl") == 1  # the second is not there
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "grids" / "20.png")
    assert again().log_events(run_id, tmp_path / "events.jsonl") == 1
    assert again().log_events(run_id, tmp_path / "events.jsonl") == 0
    pictures = [file.path for file in registry._client.list_artifacts(run_id, "images") if file.path.endswith(".png")]
    assert sorted(path.split("+")[2] for path in pictures) == ["10", "20"]


def register(registry: Registry, model: str, pipeline: Path, checkpoint: str = CHECKPOINT) -> Version:
    run_id = registry.open_run(f"{model} {checkpoint}", model, {"steps": 8})
    return registry.register(
        model,
        run_id,
        pipeline,
        checkpoint=checkpoint,
        tags={"darkroom.verdict": "PASS"},
        description="A version.",
        model_description="A model.",
        metrics={"distance": 0.5},
        artifacts={"evaluation": pipeline / "unet", "pages/index.json": pipeline / "model_index.json"},
    )


def test_one_checkpoint_is_one_version(again: Any, model: str, pipeline: Path) -> None:
    registry = again()
    assert registry.version_of(model, CHECKPOINT) is None
    assert registry.versions(model) == []
    version = register(registry, model, pipeline)
    assert register(again(), model, pipeline) == version == registry.version_of(model, CHECKPOINT)
    other = register(registry, model, pipeline, "e" * 64)
    assert registry.versions(model) == [other, version]

    assert version.uri == f"models:/{model}/1"
    assert version.tags == {"darkroom.verdict": "PASS", "darkroom.checkpoint": version.checkpoint}
    assert (version.checkpoint, version.description, version.aliases) == (CHECKPOINT, "A version.", ())
    assert points(registry, version.run_id, "distance") == [(0, 0.5)]
    folder = registry.pipeline_folder(version)
    assert (folder / "unet" / "weights.safetensors").read_bytes() == b"\1" * 1000
    assert "torch==" in (folder.parents[1] / "requirements.txt").read_text()
    run = registry.run(version.run_id)
    (output,) = run["outputs"]["model_outputs"]
    logged = registry._client.get_logged_model(output["model_id"])
    assert {metric.key: metric.value for metric in logged.metrics} == {"distance": 0.5}
    artifacts = Path(run["info"]["artifact_uri"].removeprefix("file://"))
    assert (artifacts / "evaluation" / "weights.safetensors").is_file()
    assert (artifacts / "pages" / "index.json").read_text() == "{}"
    assert registry.artifact(version.run_id, "pages/index.json") == b"{}"
    assert registry.artifact(version.run_id, "pages/other.json") is None
    assert registry.artifact(version.run_id, "index.json") is None
    assert abs(version.created / 1000 - time.time()) < 3600


@pytest.mark.parametrize(
    "moment", ["create_logged_model", "log_model_artifacts", "finalize_logged_model", "log_outputs", "log_batch"]
)
def test_a_half_registered_version_is_completed(
    again: Any, moment: str, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, model = again(), f"half-{moment}"
    run_id = registry.open_run(f"{model} {CHECKPOINT}", model, {"steps": 8})
    call = getattr(registry._client, moment)

    def killed(*args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(registry._client, moment, killed)
    with pytest.raises(Killed):
        register(registry, model, pipeline)
    monkeypatch.undo()
    assert again().versions(model) == []

    version = register(again(), model, pipeline)
    assert (version.version, version.checkpoint, version.run_id) == ("1", CHECKPOINT, run_id)
    assert (registry.pipeline_folder(version).parents[1] / "MLmodel").is_file()
    (logged,) = registry._client.search_logged_models([registry._experiment_id], f"name = '{model}'")
    assert str(logged.status) == "READY"
    assert len(registry.run(run_id)["outputs"]["model_outputs"]) == 1
    assert points(registry, run_id, "distance") == [(0, 0.5)]


def test_an_alias_points_to_one_version(registry: Registry, model: str, pipeline: Path) -> None:
    assert registry.with_alias(model, "champion") is None
    first, second = (register(registry, model, pipeline, digest * 64) for digest in "12")
    assert registry.with_alias(model, "champion") is None
    first = registry.set_alias(first, "champion")
    assert first.aliases == ("champion",)
    assert registry.set_alias(first, "champion") == registry.with_alias(model, "champion") == first
    second = registry.set_alias(second, "champion")
    assert registry.with_alias(model, "champion") == second
    registry.set_alias(first, "champion")  # whose own view of the aliases is out of date
    assert registry.with_alias(model, "champion") == first
    for _ in range(2):
        registry.delete_alias(model, "champion")
        assert registry.with_alias(model, "champion") is None


def test_references(registry: Registry, model: str, pipeline: Path) -> None:
    version = registry.set_alias(register(registry, model, pipeline), "champion")
    for reference in (f"{model}@champion", f"{model}/1", f"models:/{model}/1", f"models:/{model}@champion"):
        assert registry.resolve(reference) == version
    for reference, hint in (
        (f"{model}@challenger", f"{model}/1 = {model}@champion"),
        (f"{model}/7", f"{model}/1"),
        ("nothing/1", model),
        (model, "NAME@champion"),
    ):
        with pytest.raises(RecipeError, match=hint):
            registry.resolve(reference)


def test_a_later_evaluation_is_added(registry: Registry, model: str, pipeline: Path) -> None:
    version = register(registry, model, pipeline)
    changes: dict[str, Any] = {
        "tags": {"darkroom.verdict": "FAIL"},
        "description": "Worse.",
        "metrics": {"distance": 2.0},
    }
    changed = registry.annotate(version, **changes)
    assert changed == replace(version, tags=version.tags | {"darkroom.verdict": "FAIL"}, description="Worse.")
    assert registry.annotate(changed, **changes) == changed
    assert registry.annotate(changed) == changed
    assert points(registry, version.run_id, "distance") == [(0, 0.5), (1, 2.0)]


def test_files_that_were_moved_away_are_explained(registry: Registry, model: str, pipeline: Path) -> None:
    version = register(registry, model, pipeline)
    registry.model_folder(version).rename(registry.artifacts / "elsewhere")
    with pytest.raises(DarkroomError, match="absolute paths"):
        registry.pipeline_folder(version)


@pytest.fixture(scope="module")
def server(database: str, home: Path) -> Iterator[str]:
    """MLflow's own server on the module's database, as `darkroom up` starts it."""
    port = process.free_port()
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", database, "--no-serve-artifacts"]
    command += ["--default-artifact-root", str(home / "artifacts")]
    running = process.spawn(command, log=home / "server.log", env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            assert running.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < end, (home / "server.log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.stop(running, 10)


def test_a_server_tells_of_lost_aliases_what_the_database_does(
    registry: Registry, model: str, pipeline: Path, server: str, home: Path
) -> None:
    first = registry.set_alias(register(registry, model, pipeline), "champion")
    register(registry, model, pipeline, "2" * 64)
    registry.tag_model(model, "darkroom.champion", '{"version": "1", "checkpoint": ""}')
    registry._client.delete_model_version(model, first.version)
    other = registry.set_alias(register(registry, f"{model}-2", pipeline), "challenger")
    registry._client.delete_run(other.run_id)
    found = list(lost(Settings(home=home, mlflow_uri=server)))
    assert found == list(lost(Settings(home=home, mlflow_uri=registry.uri)))
    told = [sentence for sentence, _ in found if model in sentence]
    assert len(told) == 2
    assert "was deleted in MLflow" in told[0] + told[1]


def test_a_server_answers_what_the_database_does(
    server: str, again: Any, database: str, home: Path, model: str, pipeline: Path
) -> None:
    made = register(again(), model, pipeline)
    again().set_alias(made, "champion")
    asked = Registry(database, home / "artifacts", "another", server)
    assert asked.with_alias(model, "champion") == again().with_alias(model, "champion") is not None
    assert asked.with_alias(model, "challenger") is None
    assert asked.with_alias("no-such-model", "champion") is None
    assert asked.version_of(model, CHECKPOINT) == again().version_of(model, CHECKPOINT) is not None
    assert asked.version_of(model, "0" * 64) is None
    assert "_client" not in vars(asked), "MLflow itself was not needed"


def test_the_database_answers_for_a_server_that_does_not(
    closed_port: int, other_server: int, again: Any, database: str, home: Path, model: str, pipeline: Path
) -> None:
    made = register(again(), model, pipeline)
    for port in (closed_port, other_server):
        asked = Registry(database, home / "artifacts", "another", f"http://127.0.0.1:{port}")
        assert asked.version_of(model, CHECKPOINT) == made


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def other_server() -> Iterator[int]:
    """Something at the address that is not MLflow."""

    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_server_that_is_down_is_named(closed_port: int, tmp_path: Path) -> None:
    registry = Registry(f"http://127.0.0.1:{closed_port}", tmp_path, "digits")
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=f"{closed_port} does not answer: start it .*darkroom up"):
        registry.ping()
    with pytest.raises(ServiceUnavailable, match=str(closed_port)):
        registry.resolve("digits@champion")
    assert time.monotonic() - started < 20


def test_a_server_that_is_not_mlflow_is_named(other_server: int, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="not answer as an MLflow server"):
        Registry(f"http://127.0.0.1:{other_server}", tmp_path, "digits").ping()


def test_an_address_of_an_unknown_kind_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="DARKROOM_MLFLOW_URI"):
        Registry("ftp://somewhere", tmp_path, "digits").ping()


def test_a_models_history_stands_behind_its_own_words(registry: Registry, model: str) -> None:
    registry._client.create_registered_model(model)
    registry.describe(model, "### History", "### History\nnothing yet")
    assert registry._client.get_registered_model(model).description == "### History\nnothing yet"
    registry._client.update_registered_model(model, "Words.\n\n### History\nnothing yet")
    for words in ("### History\none", "### History\none", "### History\ntwo"):
        registry.describe(model, "### History", words)
    assert registry._client.get_registered_model(model).description == "Words.\n\n### History\ntwo"
    registry.describe(model, "### History", "### History\n" + "x" * 9000)
    assert len(registry._client.get_registered_model(model).description) == 5000
