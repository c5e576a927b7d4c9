"""Child processes that die with their parent, daemons that do not, and how to end either.

A pid alone does not name a process: the kernel gives it out again. So a process that is remembered in a file is
remembered with its :func:`started` too, and :func:`alive` and :func:`stop` never touch another one.

This module is also the launcher of its own children (see :func:`spawn`): keep its imports few.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired

PR_SET_PDEATHSIG = 1  # linux/prctl.h
POLL_SECONDS = 0.02


def spawn(
    command: Sequence[str],
    *,
    log: Path | None,
    env: Mapping[str, str],
    cwd: Path | None = None,
    new_session: bool = True,
) -> Popen[bytes]:
    """Start a command that is killed when the *thread* that calls this ends, however it ends.

    So call it from a thread that lives as long as the child is wanted, most simply the main thread. stdout and stderr
    are appended to ``log``, or are ours where it is None. In a session of its own, Ctrl-C in the terminal reaches us
    and not the child. Outside Linux the child merely starts.
    """
    command = bound(command)
    output = None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    try:
        return Popen(
            command,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT if output else None,
            env=dict(env),
            cwd=cwd,
            start_new_session=new_session,
        )
    finally:
        if output is not None:
            output.close()


def bound(command: Sequence[str]) -> list[str]:
    """The command such that, started by a thread of this process, it is killed when that thread ends."""
    if sys.platform != "linux":
        return list(command)
    # No preexec_fn: it may deadlock in a process with threads. This file, run as a script, asks the kernel to be
    # killed with its parent and becomes the command, under the same pid.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), "--", *command]


def daemon(command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> int:
    """Start a command that outlives us, in a session of its own, its output appended to ``log``; returns its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return os.posix_spawn(
        command[0],
        list(command),
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP],
    )


def started(pid: int) -> str | None:
    """When this process started, as a word to compare; None when there is none (a zombie counts as none)."""
    if sys.platform != "linux":
        return _started_by_ps(pid)
    try:
        # "pid (name) state ppid …": the name may hold spaces and brackets, so count from the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]  # proc(5): fields 3 and 22
    return None if state in "ZX" else f"{_boot()}/{ticks}"


def alive(pid: int, started_at: str) -> bool:
    """Whether the process that had this pid and start is still there."""
    return started(pid) == started_at


def stop(process: Popen[bytes] | int, grace_seconds: float, *, started_at: str | None = None) -> None:
    """SIGTERM to a process, and to its group when it leads one; SIGKILL to what is left after the grace.

    For a process that is known by its pid, say when it started: if that does not fit, nothing is signalled.
    """
    pid = process if isinstance(process, int) else process.pid
    now = started(pid)
    if now is not None:
        ours = now == started_at if started_at else isinstance(process, int) or process.returncode is None
        group = ours and _group(pid) == pid
    else:
        # The kernel gives a number out again only when no group goes by it either: within one boot, what is left of
        # that group is what we knew.
        ours = group = not isinstance(process, int) or (started_at or "").partition("/")[0] == _boot()
    if ours:
        _signal(pid, signal.SIGTERM, group=group)
        if not _gone(pid, now, group=group, seconds=grace_seconds):
            _signal(pid, signal.SIGKILL, group=group)
            _gone(pid, now, group=group, seconds=5)
        _reap(process)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's remains don't count
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def _signal(pid: int, number: signal.Signals, *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, number)


def _group(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _gone(pid: int, started_at: str | None, *, group: bool, seconds: float) -> bool:
    """Wait until the process, and the group that it leads, are no more; False when the time is up first."""
    end = time.monotonic() + seconds
    while (started_at is not None and alive(pid, started_at)) or (group and _members(pid)):
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _members(group: int) -> bool:
    """Whether a group has a process that still runs; one that only waits to be reaped does not."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if sys.platform != "linux":
        return True
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
                if fields[2] == str(group) and fields[0] not in "ZX":
                    return True
    return False


def _reap(process: Popen[bytes] | int) -> None:
    """Collect the exit status of a child of ours, so that it does not linger as a zombie."""
    if isinstance(process, int):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
    else:
        with contextlib.suppress(TimeoutExpired):
            process.wait(timeout=1)


def _boot() -> str:
    """Which boot of the machine this is: pids and ticks start again with each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def _started_by_ps(pid: int) -> str | None:
    import subprocess

    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, when = answer.stdout.strip().partition(" ")
    return None if not when or state.startswith("Z") else f"{_boot()}/{when.strip()}"


def _become(parent: int, command: Sequence[str]) -> None:
    """Ask the kernel to kill this process with its parent, then turn into the command."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.exit(f"{command[0]} does not start: {error}")


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[3:])
