"""The doctor tells the truth, quickly, changes nothing and survives any home folder."""

import hashlib
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from darkroom.process import free_port
from darkroom.settings import Settings
from flows.doctor import Line, doctor


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if prefect were not imported, nothing were configured and this were no checkout."""
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "DARKROOM_MLFLOW_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def find(lines: list[Line], words: str) -> Line:
    """The one line with these words."""
    (line,) = (line for line in lines if words in line.sentence)
    return line


def mlflow_store(home: Path, *places: str) -> None:
    """What counts of MLflow's database: where each experiment's artifacts are."""
    home.mkdir(exist_ok=True)
    with sqlite3.connect(home / "mlflow.db") as store:
        store.execute("CREATE TABLE experiments (name TEXT, artifact_location TEXT, lifecycle_stage TEXT)")
        rows = [(f"experiment-{number}", place, "active") for number, place in enumerate(places)]
        store.executemany("INSERT INTO experiments VALUES (?, ?, ?)", rows)
    store.close()


def test_a_home_that_is_not_there_stays_so(tmp_path: Path) -> None:
    home = tmp_path / "none" / "yet"
    begun = time.monotonic()
    lines, fine = doctor(Settings(home=home))
    assert time.monotonic() - begun < 3
    assert fine
    assert not home.parent.exists()
    assert find(lines, "Python 3").state == "ok"
    assert find(lines, "torch ").state == "ok"
    assert "each run starts its own server" in find(lines, "Prefect:").sentence
    assert "no database yet" in find(lines, "MLflow:").sentence


def test_where_people_are_told_is_said_without_a_secret(tmp_path: Path) -> None:
    lines, fine = doctor(Settings(home=tmp_path))
    assert fine
    assert find(lines, "nobody is told").optional
    hook, mail = "https://hooks.example.org/planted", "mailtos://robot:planted@smtp.example.org?to=you@example.org"
    lines, fine = doctor(Settings(home=tmp_path, notify_webhook=hook, notify_mail=mail))
    assert fine
    told = find(lines, "people are told by the webhook at hooks.example.org and by mail to you@example.org").sentence
    assert "smtp.example.org:587, with TLS" in told
    assert "planted" not in told
    lines, fine = doctor(Settings(home=tmp_path, notify_mail="planted"))
    assert not fine
    assert "planted" not in find(lines, "DARKROOM_NOTIFY_MAIL is no address").sentence


def test_what_is_optional_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.doctor.OPTIONAL", {"no-such-package": "nothing"})
    lines, fine = doctor(Settings(home=tmp_path))
    line = find(lines, "no-such-package")
    assert (line.state, line.optional, line.remedy) == ("missing", True, "pip install no-such-package")
    assert fine


def test_what_is_required_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.doctor.REQUIRED", ("no-such-package",))
    lines, fine = doctor(Settings(home=tmp_path))
    assert find(lines, "no-such-package").remedy
    assert not fine


def test_servers_that_do_not_answer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefect, mlflow = f"http://127.0.0.1:{free_port()}/api", f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    lines, fine = doctor(Settings(home=tmp_path, mlflow_uri=mlflow))
    assert not fine
    assert "PREFECT_API_URL" in find(lines, prefect).remedy
    assert "DARKROOM_MLFLOW_URI" in find(lines, mlflow).remedy


def test_a_moved_checkout_is_noticed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "artifacts").mkdir(parents=True)
    here, gone = str(home / "artifacts" / "0"), str(tmp_path / "elsewhere" / "artifacts" / "1")
    mlflow_store(home, here, gone, f"file://{gone}", "mlflow-artifacts:/2")
    lines, fine = doctor(Settings(home=home))
    moved = [line for line in lines if "was this checkout moved" in line.sentence]
    assert [line.state for line in moved] == ["warning", "warning"]
    assert all(gone in line.sentence for line in moved)
    assert "4 experiments" in find(lines, "mlflow.db,").sentence
    assert fine


def test_the_shipped_weights_are_verified(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "a.bin").write_bytes(b"a")
    (weights / "b.bin").write_bytes(b"b")
    sums = [f"{hashlib.sha256(letter).hexdigest()}  {letter.decode()}.bin\n" for letter in (b"a", b"b")]
    (weights / "SHA256SUMS").write_text("".join(sums))
    lines, fine = doctor(Settings(home=tmp_path), weights)
    assert fine
    assert find(lines, "2 shipped weight files").state == "ok"
    (weights / "a.bin").write_bytes(b"changed")
    (weights / "b.bin").unlink()
    lines, fine = doctor(Settings(home=tmp_path), weights)
    assert not fine
    assert "a.bin (changed), b.bin (not there)" in find(lines, "shipped weights").sentence


@pytest.mark.parametrize("name", ["mlflow.db", "services.json"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 200, b"[]", b'{"mlflow": 1, "prefect": {"pid": 1}}'])
def test_a_damaged_home_is_survived(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    lines, fine = doctor(Settings(home=tmp_path))
    assert fine
    assert lines
    assert (tmp_path / name).read_bytes() == content


def test_a_home_that_is_a_file_is_survived(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    lines, _ = doctor(Settings(home=tmp_path / "home"))
    assert lines
