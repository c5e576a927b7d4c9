"""What was deleted in MLflow and is still needed is named. The tests of the registry ask a server for the same."""

import shutil
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
        folder.mkdir(parents=True)
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
    warnings = [line.sentence for line in lines if line.state == "warning"]
    assert [sentence for sentence, _ in lost(Settings(home=home))] == [one for one in warnings if "version 1" in one]


def test_no_database_is_no_finding(tmp_path: Path) -> None:
    assert list(lost(Settings(home=tmp_path))) == []
    assert not list(tmp_path.iterdir())


def test_a_server_that_does_not_answer_is_no_finding_here(home: Path) -> None:
    assert list(lost(Settings(home=home, mlflow_uri=f"http://127.0.0.1:{process.free_port()}"))) == []
