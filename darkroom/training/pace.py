"""How fast training is, how busy what it computes on is, and how long it still takes."""

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from darkroom.recipe import Train

SPEED, BUSY, LEFT = "train/pictures_per_second", "train/busy_share", "train/seconds_left"


class Pace:
    """A stopwatch from the step that training starts or goes on from."""

    def __init__(
        self,
        plan: "Train",
        device: "torch.device",
        step: int,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
    ) -> None:
        self._plan, self._device, self._clock, self._worked = plan, device, clock, worked
        self._first = self._last = (step, clock(), worked())

    def told(self, step: int) -> dict[str, float]:
        """Pictures a second and the busy share since this was last asked, and the seconds that are left.

        The busy share is that of the GPU's time, as its driver has it, or on a CPU of the recipe's threads; the seconds
        left count on validations, grids and checkpoints as often as there were some so far.
        """
        last, now = self._last, (step, self._clock(), self._worked())
        passed = max(now[1] - last[1], 1e-9)
        found = {SPEED: round((step - last[0]) * self._plan.batch / passed, 1)}
        if self._device.type == "cpu":
            found[BUSY] = round((now[2] - last[2]) / passed / self._plan.threads, 3)
        elif (share := gpu_share(self._device)) is not None:
            found[BUSY] = share
        each = (now[1] - self._first[1]) / max(1, step - self._first[0])
        found[LEFT] = round(each * (self._plan.steps - step), 1)
        self._last = now
        return found


def gpu_share(device: "torch.device") -> float | None:
    """The share of the last moments in which a GPU was computing; None where nobody says (nvidia-ml-py is needed)."""
    import torch

    # What NVIDIA's library and AMD's raise has no common ancestor below Exception.
    with contextlib.suppress(Exception):
        return torch.cuda.utilization(device) / 100
    return None


def in_words(metrics: dict[str, float]) -> str:
    """What :meth:`Pace.told` found, as a person says it."""
    words = [f"{metrics[SPEED]:,.0f} pictures/s"]
    if BUSY in metrics:
        words.append(f"{metrics[BUSY]:.0%} busy")
    return ", ".join([*words, f"{duration(metrics[LEFT])} left"])


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
