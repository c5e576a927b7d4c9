"""The champion's alias against a real MLflow on SQLite: it moves whole or not at all, and every move is told."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom import history
from darkroom.champion import move, notice
from darkroom.errors import ChampionMoved, RecipeError, ServiceUnavailable, Unservable
from darkroom.promotion import Done, promote, refuse, rollback
from darkroom.registry import Registry, Version
from darkroom.store import Store


class Killed(BaseException):
    """Stands in for SIGKILL: nothing may catch it."""


class Fragile(Registry):
    """A registry whose method of this name fails once, after so many calls."""

    method, error, calls = "", Exception(), 0

    def _fails(self, name: str) -> None:
        if name == self.method:
            self.calls -= 1
            if self.calls < 0:
                self.method = ""
                raise self.error

    def set_alias(self, version: Version, alias: str) -> Version:
        self._fails("before set_alias")
        done = super().set_alias(version, alias)
        self._fails("after set_alias")
        return done

    def tag_model(self, name: str, key: str, value: str) -> None:
        self._fails("tag_model")
        super().tag_model(name, key, value)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", "first").ping()
    return folder


@pytest.fixture
def registry(home: Path) -> Fragile:
    return Fragile(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", "first")


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home / "store")


@pytest.fixture
def model(registry: Registry, request: pytest.FixtureRequest) -> str:
    """A model of this test with versions 1, 2 and 3."""
    name = str(request.node.name).replace("_", "-")
    registry._client.create_registered_model(name)
    for number in (1, 2, 3):
        tags = {"darkroom.checkpoint": f"c{number}"}
        registry._client.create_model_version(name, "file:///nowhere", tags=tags, description="Words.")
    return name


def sound(registry: Registry, version: Version) -> None:
    """A smoke test that every version passes."""


def champion(registry: Registry, model: str) -> str | None:
    found = registry.with_alias(model, "champion")
    return found.version if found else None


def moves(registry: Registry, model: str) -> list[tuple[int, str, str, str | None]]:
    found = history.History(
        model, tuple(history.Entry(one, {}, *history._told(one)) for one in registry.versions(model))
    )
    return [(one.number, one.version, one.who, one.against and one.against.version) for one in found.moves]


@pytest.fixture
def by_hand(registry: Fragile, model: str, store: Store) -> Callable[..., Done]:
    """``by_hand(version, who, why)``: promote without a smoke test."""
    return lambda version, who, why="": promote(registry, model, version, who, why, store, sound)


def test_promotions_by_hand_are_told_in_order(registry, model, by_hand) -> None:
    by_hand("1", "ada")
    done = by_hand("2", "bob", "sharper")
    by_hand("1", "ada", "the old one again")
    assert moves(registry, model) == [(1, "1", "ada", None), (2, "2", "bob", "1"), (3, "1", "ada", "2")]
    second = registry.resolve(f"{model}/2")
    (told,) = history.moves_of(second)
    assert (told.why, told.against) == ("sharper", history.Against("1", "c1"))
    assert told.when.endswith("+00:00")
    assert second.description == f"Promoted by bob at {told.when} instead of version 1: sharper. Words."
    (moved,) = done.moves
    assert moved.told == {"model": model, "version": "2", "before": "1", "who": "bob", "why": "sharper"}


def test_what_is_the_champion_already_is_not_moved(registry, model, by_hand) -> None:
    by_hand("1", "ada")
    done = by_hand("1", "bob")
    assert "already" in done.words
    assert not done.moves
    assert len(moves(registry, model)) == 1


def test_a_version_that_draws_nothing_moves_nothing(registry, model, by_hand, store) -> None:
    by_hand("1", "ada")
    before = registry.versions(model)

    def flat(_: Registry, version: Version) -> None:
        raise Unservable(f"{version.uri} is flat")

    with pytest.raises(Unservable):
        promote(registry, model, "2", "bob", "", store, flat)
    with pytest.raises(Unservable, match="cannot be loaded"):
        promote(registry, model, "2", "bob", "", store)  # the real test, of files that are not there
    assert registry.versions(model) == before


@pytest.mark.parametrize("moment", ["before set_alias", "after set_alias", "tag_model"])
def test_a_failure_leaves_or_restores_the_alias(registry, model, by_hand, moment: str) -> None:
    by_hand("1", "ada")
    waiting = registry.set_alias(registry.resolve(f"{model}/2"), "challenger")
    registry.method, registry.error = moment, ServiceUnavailable("gone for a moment")
    with pytest.raises(ServiceUnavailable):
        by_hand("challenger", "bob")
    assert champion(registry, model) == "1"
    assert moves(registry, model) == [(1, "1", "ada", None)]
    second = registry.resolve(f"{model}@challenger")
    assert (second.version, second.description) == (waiting.version, "Words.")
    by_hand("challenger", "bob")
    assert moves(registry, model)[1:] == [(2, "2", "bob", "1")]
    assert registry.with_alias(model, "challenger") is None


def test_a_failure_of_the_first_promotion_leaves_no_champion(registry, model, by_hand, store) -> None:
    registry.method, registry.error = "tag_model", ServiceUnavailable("gone for a moment")
    with pytest.raises(ServiceUnavailable):
        by_hand("1", "ada")
    assert champion(registry, model) is None
    assert notice(registry, model, store) is None
    assert moves(registry, model) == []


@pytest.mark.parametrize("moment", ["before set_alias", "after set_alias", "tag_model"])
def test_a_kill_at_any_moment_leaves_one_move_once_it_is_repeated(registry, model, by_hand, store, moment: str) -> None:
    by_hand("1", "ada")
    registry.method, registry.error = moment, Killed()
    with pytest.raises(Killed):
        by_hand("2", "bob")
    moved = champion(registry, model) == "2"
    assert moved == (moment != "before set_alias")
    assert notice(registry, model, store) is None, "it was ours"
    assert moves(registry, model)[1:] == ([(2, "2", "bob", "1")] if moved else [])
    by_hand("2", "bob")
    assert moves(registry, model) == [(1, "1", "ada", None), (2, "2", "bob", "1")]
    by_hand("3", "eve")
    assert moves(registry, model)[2:] == [(3, "3", "eve", "2")]


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(home, registry, model, by_hand, store) -> None:
    by_hand("1", "ada")
    upon = registry.with_alias(model, "champion")
    both = threading.Barrier(2)
    said: dict[str, str] = {}

    def decide(version: str) -> None:
        own = Registry(registry.uri, home / "artifacts", "first")
        chosen = own.resolve(f"{model}/{version}")
        both.wait()
        try:
            move(own, chosen, store, upon=upon, who=f"of {version}", why="better", smoke=sound)
        except ChampionMoved as error:
            said[version] = str(error)

    threads = [threading.Thread(target=decide, args=(version,)) for version in "23"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (loser,) = said
    winner = {"2": "3", "3": "2"}[loser]
    assert champion(registry, model) == winner
    assert f"version {winner} is, by of {winner}" in said[loser]
    assert moves(registry, model) == [(1, "1", "ada", None), (2, winner, f"of {winner}", "1")]


def test_a_move_while_the_smoke_test_draws_wins(registry, model, by_hand, store) -> None:
    by_hand("1", "ada")

    def slow(own: Registry, version: Version) -> None:
        own.set_alias(own.resolve(f"{model}/3"), "champion")  # as on MLflow's page

    with pytest.raises(ChampionMoved, match="version 1 was the champion"):
        promote(registry, model, "2", "bob", "", store, slow)
    assert champion(registry, model) == "3"


def test_a_move_on_mlflows_page_is_noticed_once(registry, model, by_hand, store) -> None:
    by_hand("1", "ada")
    assert notice(registry, model, store) is None
    registry._client.set_registered_model_alias(model, "champion", "3")
    noticed = notice(registry, model, store)
    assert noticed is not None
    assert noticed.told | {"why": ""} == {"model": model, "version": "3", "before": "1", "who": "MLflow", "why": ""}
    assert notice(registry, model, store) is None
    assert moves(registry, model) == [(1, "1", "ada", None), (2, "3", "MLflow", "1")]
    assert "Promoted by MLflow at" in registry.resolve(f"{model}/3").description


def test_a_promotion_tells_of_the_move_on_mlflows_page_before_it(registry, model, by_hand) -> None:
    by_hand("1", "ada")
    registry._client.set_registered_model_alias(model, "champion", "3")
    done = by_hand("2", "bob")
    assert [one.told["who"] for one in done.moves] == ["MLflow", "bob"]
    assert moves(registry, model) == [(1, "1", "ada", None), (2, "3", "MLflow", "1"), (3, "2", "bob", "3")]


def test_a_champion_set_on_mlflows_page_before_any_other_is_noticed(registry, model, store) -> None:
    assert notice(registry, model, store) is None
    assert notice(registry, "no-such-model", store) is None
    registry._client.set_registered_model_alias(model, "champion", "2")
    noticed = notice(registry, model, store)
    assert noticed is not None
    assert noticed.before is None
    assert moves(registry, model) == [(1, "2", "MLflow", None)]


def test_a_rollback_goes_back_one_champion_each_time(registry, model, by_hand, store) -> None:
    def back() -> Done:
        return rollback(registry, model, "eve", "worse in use", store, sound)

    for version in "123":
        by_hand(version, "ada")
    assert "instead of version 3" in back().words
    assert champion(registry, model) == "2"
    back()
    assert champion(registry, model) == "1"
    with pytest.raises(RecipeError, match="is the first champion on record"):
        back()
    assert champion(registry, model) == "1"
    by_hand("3", "ada")
    back()
    assert champion(registry, model) == "1", "2 was rolled back before"
    told = moves(registry, model)
    assert [(version, who) for _, version, who, _ in told[3:]] == [
        *(("2", "eve"), ("1", "eve")),
        *(("3", "ada"), ("1", "eve")),
    ]
    assert "Rolled back to by eve at" in registry.resolve(f"{model}/1").description


def test_a_rollback_goes_back_from_a_move_on_mlflows_page(registry, model, by_hand, store) -> None:
    by_hand("1", "ada")
    registry._client.set_registered_model_alias(model, "champion", "3")
    rollback(registry, model, "eve", "", store, sound)
    assert champion(registry, model) == "1"


def test_a_rollback_passes_over_a_version_that_was_deleted(registry, model, by_hand, store) -> None:
    for version in "123":
        by_hand(version, "ada")
    registry._client.delete_model_version(model, "2")
    rollback(registry, model, "eve", "", store, sound)
    assert champion(registry, model) == "1"


def test_a_refused_version_waits_no_longer_and_keeps_the_reason(registry, model, by_hand, store) -> None:
    by_hand("1", "ada")
    registry.set_alias(registry.resolve(f"{model}/2"), "challenger")
    done = refuse(registry, model, "2", "bob", "blurred", store)
    assert "version 1 stays the champion" in done.words
    assert registry.with_alias(model, "challenger") is None
    assert champion(registry, model) == "1"
    second = registry.resolve(f"{model}/2")
    (told,) = history.refusals_of(second)
    assert (told.who, told.why, told.against) == ("bob", "blurred", history.Against("1", "c1"))
    assert "Refused by bob at" in second.description
    for version, hint in (("2", "no alias points to it"), ("1", "it is the champion"), ("challenger", "there is no")):
        with pytest.raises(RecipeError, match=hint):
            refuse(registry, model, version, "bob", "", store)
