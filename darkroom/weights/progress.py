"""A line that says what runs, how far it is and how long it still takes."""

import sys
import time
from collections.abc import Iterator


def counted(what: str, steps: int) -> Iterator[int]:
    """Yield 0 to ``steps`` - 1 and tell standard error after every tenth of them."""
    began = time.monotonic()
    for step in range(steps):
        yield step
        if (step + 1) % max(1, steps // 10) == 0:
            left = (time.monotonic() - began) / (step + 1) * (steps - step - 1)
            print(f"{what}: step {step + 1} of {steps}, {left:.0f} s left", file=sys.stderr, flush=True)
