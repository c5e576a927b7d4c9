"""Everything darkroom raises on purpose, and the exit status of each.

    DarkroomError                 1   an unexpected failure, explained
    ├── RecipeError               2   a mistake in the recipe or on the command line (also a ValueError)
    ├── DataGateRefused           3   the data did not pass the checks
    ├── ChampionMoved             1   another promotion was faster
    ├── Unservable                1   a version that cannot be loaded and draw stays as it is
    ├── ServiceUnavailable        4   an outside service stayed unreachable
    ├── Stopped                   5   stopped for a reason that is explained
    │   ├── DiskFull
    │   ├── InUse
    │   ├── OutOfMemory
    │   └── Diverged
    └── Interrupted             130   stopped by the user; the same command resumes

A message is for the person who made the mistake: which file or field, what is wrong, what to do.
"""


class DarkroomError(Exception):
    """The root of the tree."""

    exit_status = 1


class RecipeError(DarkroomError, ValueError):
    """The recipe, the data it names or the command line is wrong."""

    exit_status = 2


class DataGateRefused(DarkroomError):
    """Critical expectations failed; the message names the Data Docs page that shows them."""

    exit_status = 3


class ChampionMoved(DarkroomError):
    """The champion is no longer the one that a decision was made upon."""


class Unservable(DarkroomError):
    """A version that does not load as it is served, or draws nothing, and so does not become champion."""


class ServiceUnavailable(DarkroomError):
    """A server that is configured did not answer, also after retries."""

    exit_status = 4


class Stopped(DarkroomError):
    """The run ended early for a reason that the message explains."""

    exit_status = 5


class DiskFull(Stopped):
    """Too little room for what is about to be written."""


class InUse(Stopped):
    """A run is using what was to be deleted."""


class OutOfMemory(Stopped):
    """The model or the batch does not fit."""


class Diverged(Stopped):
    """The loss is no longer a finite number."""


class Interrupted(DarkroomError):
    """Ctrl-C or SIGTERM; what was finished is kept and the same command goes on from there."""

    exit_status = 130
