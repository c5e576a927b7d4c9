"""Both halves of a batch at once, each on half of a CPU's threads.

Threads that share each operation wait for each other at the end of all of them, thousands of times a step; halves wait
once. That is at most a little faster on a quiet machine, and several times where other work takes a thread's time.

The same bytes every time: a gradient is the sum of two, whose order changes nothing. Of three it would.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from .methods import Method

T = TypeVar("T")


class Halves:
    """A second thread beside the one that trains."""

    def __init__(self, threads: int) -> None:
        self._own, other = threads - threads // 2, threads // 2
        self._second = ThreadPoolExecutor(1, "half", _compute_with, (other,))

    @staticmethod
    def fit(task: Method) -> bool:
        """Whether a task can be halved: on a CPU, where nothing is drawn while its networks compute."""
        plan = task.job.train
        if not task.halves or task.device.type != "cpu" or plan.threads < 2:
            return False
        if plan.compile or plan.precision == "fp16":
            return False
        layers = (layer for network in task.networks() for layer in network.modules())
        return not any(isinstance(layer, torch.nn.modules.dropout._DropoutNd) and layer.p for layer in layers)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """The context in which the thread that trains leaves the other half of the threads alone."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._own)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def run(self, first: Callable[[], T], second: Callable[[], T]) -> list[T]:
        """What both return; raises what one of them raises once both have ended."""
        with self.apart():
            later = self._second.submit(second)
            try:
                sooner = first()
            finally:
                wait([later])
        return [sooner, later.result()]


def _compute_with(threads: int) -> None:
    """The calling thread computes with so many from now on."""
    torch.get_num_threads()  # at first it takes on what was last set anywhere
    torch.set_num_threads(threads)
