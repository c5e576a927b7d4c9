"""Being told to stop."""

import signal
from types import FrameType

from darkroom.errors import Interrupted


class Stop:
    """SIGTERM ends what runs at once, but a step and its saving are waited for: they are never half done."""

    def __init__(self) -> None:
        self.asked, self._held = False, False
        self._words = "training stopped; the same command goes on from its last checkpoint"
        signal.signal(signal.SIGTERM, self._hear)

    def hold(self) -> None:
        """A step begins."""
        self._held = True

    def release(self, words: str) -> None:
        """The step is over, and saved if that was due; raises :class:`Interrupted` when a stop was asked for."""
        self._held = False
        if self.asked:
            raise Interrupted(words)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if not self._held:
            raise Interrupted(self._words)
