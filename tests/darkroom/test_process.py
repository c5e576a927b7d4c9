"""Children die with their parent, daemons do not, and nobody else's process is ever touched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darkroom import process

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that has nothing to do with the module."""
    child = subprocess.Popen(SLEEP, start_new_session=True)
    yield child
    child.kill()
    child.wait()


@linux
def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys, time\n"
        "from darkroom import process\n"
        f"child = process.spawn({SLEEP!r}, log=None, env=os.environ)\n"
        "pathlib.Path(sys.argv[1]).write_text(f'{child.pid} ')\n"
        "time.sleep(60)\n"
    )
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", script, str(note)])
    assert until(lambda: note.exists() and note.read_text().endswith(" "))
    pid = int(note.read_text())
    assert until(lambda: b"time.sleep" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"--\0")[-1])
    since = process.started(pid)
    assert since is not None
    assert os.getsid(pid) == pid, "Ctrl-C in the terminal must not reach it"
    parent.kill()
    parent.wait()
    assert until(lambda: not process.alive(pid, since))


def test_a_child_writes_to_its_log_with_the_environment_it_was_given(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    program = "import os, sys; print(os.environ['WORD'], os.getcwd()); print('bad', file=sys.stderr)"
    child = process.spawn([sys.executable, "-c", program], log=log, env={**os.environ, "WORD": "hello"}, cwd=tmp_path)
    assert child.wait(timeout=20) == 0
    assert set(log.read_text().splitlines()) == {f"hello {tmp_path}", "bad"}


@linux
def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    assert process.spawn(["no-such-command"], log=log, env=os.environ).wait(timeout=20) == 1
    assert "no-such-command does not start" in log.read_text()


def test_a_daemon_outlives_its_starter_and_stops(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from darkroom import process\n"
        f"print(process.daemon({SLEEP!r}, log=pathlib.Path(sys.argv[1]), env=os.environ))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    pid = int(subprocess.run(command, capture_output=True, check=True).stdout)
    since = process.started(pid)
    assert since is not None
    assert process.alive(pid, since)
    process.stop(pid, 5, started_at=since)
    assert not process.alive(pid, since)


def test_a_recycled_pid_is_neither_ours_nor_killed(sleeper: subprocess.Popen[bytes]) -> None:
    since = process.started(sleeper.pid)
    assert since is not None
    boot, _, ticks = since.partition("/")
    for other in (f"{boot}/{ticks}0", f"another-boot/{ticks}"):
        assert not process.alive(sleeper.pid, other)
        process.stop(sleeper.pid, 0, started_at=other)
    assert process.alive(sleeper.pid, since)


def test_a_reaped_child_has_no_start(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.send_signal(signal.SIGKILL)
    assert until(lambda: process.started(sleeper.pid) is None), "a zombie does not count"
    sleeper.wait()
    assert process.started(sleeper.pid) is None


def test_stop_kills_what_ignores_sigterm_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = (
        "import pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = subprocess.Popen({SLEEP!r})\n"
        "pathlib.Path(sys.argv[1]).write_text(f'{child.pid} ')\n"
        "time.sleep(60)\n"
    )
    child = process.spawn([sys.executable, "-c", program, str(note)], log=tmp_path / "log", env=os.environ)
    assert until(lambda: note.exists() and note.read_text().endswith(" "))
    grandchild = int(note.read_text())
    process.stop(child, 0.3)
    assert child.returncode == -signal.SIGKILL
    assert process.started(grandchild) is None


@linux
def test_stop_finds_the_group_of_a_leader_that_is_gone(tmp_path: Path) -> None:
    program = f"import subprocess; print(subprocess.Popen({SLEEP!r}).pid, flush=True); input()"
    leader = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert leader.stdout is not None
    orphan = int(leader.stdout.readline())
    since = process.started(leader.pid)
    assert since is not None
    assert leader.stdin is not None
    leader.stdin.write(b"\n")
    leader.stdin.close()
    leader.wait()
    leader.stdout.close()
    assert process.started(orphan) is not None
    process.stop(leader.pid, 5, started_at=since)
    assert process.started(orphan) is None


def test_a_free_port_is_free_until_it_is_taken() -> None:
    import socket

    port = process.free_port()
    assert process.port_is_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not process.port_is_free("127.0.0.1", port)


def test_importing_it_is_cheap() -> None:
    program = "import sys, darkroom.process; print(len({'pydantic', 'prefect', 'mlflow', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b"0"
