"""The champion's alias: the one transaction that moves it, for the gate, for people, and back.

Under a lock: the alias still points to the version that the decision was made upon; the new version, loaded as it is
served, draws a picture; the move is written on it; the alias moves; the move is written as done. What fails before the
alias moved leaves it, what fails after moves it back. A kill between is seen by the next command that reads the
champion, and so is a move on MLflow's own page (:func:`notice`).

The lock is a file of the store: it keeps the commands of one home folder apart. Homes that share an MLflow and nothing
else are told apart by the alias alone, which is read again right before and right after it is set.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import history
from ._registry import cut
from .errors import ChampionMoved, DarkroomError
from .history import Move
from .registry import Registry, Version
from .smoke import draws
from .store import Store

CHAMPION, CHALLENGER = "champion", "challenger"
DESCRIPTION = 4000  # characters of a version's text at most; MLflow's columns have an end

Smoke = Callable[[Registry, Version], None]
"""Raises :class:`darkroom.errors.Unservable` for a version that cannot be served."""


@dataclass(frozen=True)
class Moved:
    """The champion's alias points to ``version`` since ``move``, and pointed to ``before``."""

    version: Version
    move: Move
    before: Version | None

    @property
    def told(self) -> dict[str, str]:
        """What an event says of it."""
        return {
            "model": self.version.model,
            "version": self.version.version,
            "before": self.before.version if self.before else "",
            "who": self.move.who,
            "why": self.move.why,
        }


def lock_of(model: str) -> str:
    """The name of the store's lock under which the alias of a model moves."""
    return f"champion-{model}"


def move(
    registry: Registry,
    chosen: Version,
    store: Store,
    *,
    upon: Version | None,
    who: str,
    why: str,
    verdict: str = "",
    undoes: int = 0,
    smoke: Smoke = draws,
) -> Moved:
    """Make a version the champion, in one transaction.

    ``upon``: the champion that the decision was made upon, None where there was none. Raises
    :class:`ChampionMoved` when it is no longer the champion, and :class:`darkroom.errors.Unservable` for a version that
    draws nothing.
    """
    with store.lock(lock_of(chosen.model)):
        _settle(registry, chosen.model)
        standing = registry.with_alias(chosen.model, CHAMPION)
        _same(chosen, upon, standing)
        smoke(registry, chosen)
        standing = registry.with_alias(chosen.model, CHAMPION)
        _same(chosen, upon, standing)
        begun = history.begin_move(
            registry, chosen, who=who, why=why, champion=standing, verdict=verdict, undoes=undoes
        )
        try:
            now = registry.set_alias(chosen, CHAMPION)
            _same(chosen, now, registry.with_alias(chosen.model, CHAMPION))
            now = _told(registry, now, begun)
        except (Exception, KeyboardInterrupt):
            _move_back(registry, chosen, standing, begun)
            raise
        return Moved(now, begun, standing)


def notice(registry: Registry, model: str, store: Store) -> Moved | None:
    """Record that the alias was moved on MLflow's page, if it was since darkroom last looked; returns that move.

    MLflow keeps neither who moved it nor when. A move that a kill left half told is told to its end. Nothing is
    written, and no lock taken, when the alias is where darkroom left it.
    """
    page = registry.model(model)
    if page is None or CHAMPION not in page.aliases:
        return None
    known = history.known_champion(registry, model)
    if known is not None and known.version == page.aliases[CHAMPION]:
        return None
    with store.lock(lock_of(model)):
        return _settle(registry, model)


def _settle(registry: Registry, model: str) -> Moved | None:
    """What :func:`notice` does, under the lock."""
    standing = registry.with_alias(model, CHAMPION)
    known = history.known_champion(registry, model)
    if standing is None or (known is not None and known.version == standing.version):
        return None
    begun = history.begun_of(standing) or history.newest_move(registry, model)
    if begun is not None and begun.version == standing.version:  # ours: killed after the alias had moved
        _told(registry, standing, begun)
        return None
    before = next((one for one in registry.versions(model) if known and one.version == known.version), None)
    why = "the alias was moved on MLflow's page, which keeps neither who did it nor when; it was noticed now"
    noticed = history.begin_move(registry, standing, who=history.BY_HAND_IN_MLFLOW, why=why, champion=before)
    return Moved(_told(registry, standing, noticed), noticed, before)


def _told(registry: Registry, version: Version, move: Move) -> Version:
    """Write all that is written of a move after the alias moved, as far as a kill left it out."""
    drop_challenger(registry, version)
    sentence = _sentence(move)
    if sentence not in version.description:
        registry.annotate(version, description=cut(f"{sentence} {version.description}", DESCRIPTION))
    return history.end_move(registry, version, move)


def _same(chosen: Version, upon: Version | None, standing: Version | None) -> None:
    """Raise :class:`ChampionMoved` unless the alias still is where the decision found it."""
    if (upon.version if upon else None) == (standing.version if standing else None):
        return
    moves = history.moves_of(standing) if standing else []
    by = f", by {moves[-1].who} at {moves[-1].when}" if moves else ""
    was = f"version {upon.version}" if upon else "no version"
    now = f"version {standing.version} is{by}" if standing else "there is none"
    raise ChampionMoved(
        f"{chosen.uri} was not made champion: that was decided while {was} was the champion of {chosen.model}, and now "
        f"{now}; compare again with that one, then decide again"
    )


def _move_back(registry: Registry, chosen: Version, before: Version | None, begun: Move) -> None:
    """Put the alias back where it was; another one's move since then stays."""
    try:
        now = registry.with_alias(chosen.model, CHAMPION)
        if now is not None and now.version == chosen.version:
            if before is None:
                registry.delete_alias(chosen.model, CHAMPION)
            else:
                registry.set_alias(before, CHAMPION)
            known = history.as_json(history.Against(before.version, before.checkpoint)) if before else ""
            registry.tag_model(chosen.model, history.CHAMPION, known)
        if CHALLENGER in chosen.aliases:
            registry.set_alias(chosen, CHALLENGER)
        registry.annotate(registry.resolve(f"{chosen.model}/{chosen.version}"), description=chosen.description)
        history.forget_move(registry, chosen, begun)
    except DarkroomError as error:
        raise DarkroomError(
            f"{chosen.uri} may be the champion of {chosen.model} although its promotion failed, and the alias could "
            f"not be moved back: run `darkroom promote {chosen.model} {chosen.version}` or `darkroom rollback "
            f"{chosen.model}` once MLflow answers again ({error})"
        ) from error


def drop_challenger(registry: Registry, version: Version) -> None:
    """A version that was decided on waits no longer."""
    waiting = registry.with_alias(version.model, CHALLENGER)
    if waiting is not None and waiting.version == version.version:
        registry.delete_alias(version.model, CHALLENGER)


def _sentence(move: Move) -> str:
    """A move as the version's text tells it."""
    instead = f" instead of version {move.against.version}" if move.against else ""
    how = "Rolled back to" if move.undoes else "Promoted"
    return f"{how} by {move.who} at {move.when}{instead}: {move.why}."
