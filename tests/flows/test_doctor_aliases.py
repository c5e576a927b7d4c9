"""What was deleted in MLflow and is still needed is named, from its database and from its server alike."""

import contextlib
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom import history, process
from darkroom.registry import Registry
from darkroom.settings import Settings
from flows.doctor import doctor
from flows.doctor_aliases import lost


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a whole model, and one for each way to lose something."""
    home = tmp_path_factory.mktemp("home") / "mlruns"
    registry = Registry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", "first")
    client = registry._client
    for name in ("whole", "no-version", "no-alias", "no-run", "no-files", "gone-run", "untouched"):
        run_id = registry.open_run(name, name, {})
        folder = home / "artifacts" / name
        folder.mkdir()
        (folder / "MLmodel").write_text("{}")
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, folder.as_uri(), run_id=run_id)
        if name == "untouched":
            continue
        version = registry.set_alias(registry.resolve(f"{name}/1"), "champion")
        history.end_move(registry, version, history.begin_move(registry, version, who="ada", why="", champion=None))
        if name == "no-version":
            client.delete_model_version(name, "1")
        elif name == "no-alias":
            client.delete_registered_model_alias(name, "champion")
        elif name == "no-run":
            client.delete_run(run_id)
        elif name == "no-files":
            shutil.rmtree(folder)
        elif name == "gone-run":
            client.delete_run(run_id)
            client._tracking_client.store._hard_delete_run(run_id)  # what `mlflow gc` does with it
    return home


EXPECTED = {
    "no-version": ("was version 1, which was deleted in MLflow", "`darkroom promote no-version VERSION`"),
    "no-alias": ("was version 1, whose alias was taken away", "`darkroom promote no-alias 1` gives it back"),
    "no-run": ("was made by run", "mlflow runs restore"),
    "no-files": ("its files are not in", "backup"),
    "gone-run": ("is gone from MLflow with its measures", "run its recipe again"),
}


def told(found: list[tuple[str, str]]) -> None:
    assert {sentence.split("@")[0].split(" ")[0] for sentence, _ in found} == set(EXPECTED)
    for sentence, remedy in found:
        words, what = EXPECTED[sentence.split("@")[0].split(" ")[0]]
        assert words in sentence
        assert what in remedy
    assert len(found) == len(EXPECTED)


def test_the_database_tells_what_is_lost(home: Path) -> None:
    told(list(lost(Settings(home=home))))


def test_doctor_warns_of_it_and_is_still_healthy(home: Path) -> None:
    lines, _ = doctor(Settings(home=home))
    assert len([line for line in lines if line.state == "warning" and "MLflow" in line.sentence]) >= 4


def test_no_database_is_no_finding(tmp_path: Path) -> None:
    assert list(lost(Settings(home=tmp_path))) == []
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """MLflow's server on that database."""
    port = process.free_port()
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--no-serve-artifacts"]
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


def test_the_server_tells_the_same(home: Path, server: str) -> None:
    assert list(lost(Settings(home=home, mlflow_uri=server))) == list(lost(Settings(home=home)))


def test_a_server_that_does_not_answer_is_no_finding_here(home: Path) -> None:
    assert list(lost(Settings(home=home, mlflow_uri=f"http://127.0.0.1:{process.free_port()}"))) == []
