"""How much memory there is, and how much was taken at most."""

import contextlib
import resource
import sys
from pathlib import Path

import torch

GROUP = Path("/sys/fs/cgroup")  # of the container, where the kernel has one (cgroup v2)


def forget_peak(device: torch.device) -> None:
    """Count the peak from here on, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def peak(device: torch.device) -> int:
    """Bytes that were taken at most: on the device, or of a CPU by this whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if (bytes_ := _kilobytes("/proc/self/status", "VmHWM:")) is not None:
        return bytes_
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def taken(device: torch.device) -> int:
    """Bytes that are taken now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _kilobytes("/proc/self/status", "VmRSS:") or 0


def available(device: torch.device) -> int | None:
    """Bytes that can still be taken; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    whole = _kilobytes("/proc/meminfo", "MemAvailable:")
    found = [] if whole is None else [whole]
    with contextlib.suppress(OSError, ValueError, KeyError):  # "max" is no number: no limit
        cached = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())["file"]  # given back
        found.append(
            int((GROUP / "memory.max").read_text()) - int((GROUP / "memory.current").read_text()) + int(cached)
        )
    return min(found, default=None)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was too little memory."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def _kilobytes(file: str, name: str) -> int | None:
    """A line of the kernel's, in bytes; None where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(file).read_text("ascii", errors="replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None
