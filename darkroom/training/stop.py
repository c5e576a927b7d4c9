"""Being told to stop."""

import signal
from types import FrameType

from darkroom.errors import Interrupted

from .team import Team


class Stop:
    """SIGTERM ends what runs at once, but a step and its saving are waited for: they are never half done.

    Of several processes only the first ends by itself; the others note that they were asked, and end with it.
    """

    def __init__(self, team: Team) -> None:
        self.asked, self._held, self._team = False, False, team
        self._words = "training stopped; the same command goes on from its last checkpoint"
        signal.signal(signal.SIGTERM, self._hear)

    def hold(self) -> None:
        """A step begins."""
        self._held = True

    def release(self, words: str) -> None:
        """The step is over, and saved if that was due; raises :class:`Interrupted` when a stop was asked for.

        That all processes know by now.
        """
        self._held = False
        if self.asked:
            self._team.part()
            raise Interrupted(words)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self._team.leads and not self._held and not again:  # who ends already is not disturbed at it
            raise Interrupted(self._words)
