"""What darkroom tells as Prefect events, for automations to act on: every name, resource and payload in one place.

About a recipe, `darkroom.recipe.NAME`:

- `darkroom.data.new`: the source has other pictures than the last accepted version; recipe, manifest, rows.
- `darkroom.data.refused`: the data gate refused a batch; recipe, why, page.

About a model, `darkroom.model.NAME`:

- `darkroom.challenger.waiting`: a version waits for a person; model, version, recipe, why, page.
- `darkroom.champion.moved`: the champion's alias moved; model, version, before, who, why.
- `darkroom.champion.drifted`: the monitor found the champion beyond its limits; model, version, why, page.
- `darkroom.retraining.due`: the monitor says that it is time to train again; model, version, recipe, why, page.

`page` is the address of what shows it: the reviewer's page of the data, the page of the run that made the version, or
the monitor's run on Prefect's page.
"""

from collections.abc import Iterable
from typing import Any, Literal

from prefect.events import emit_event

from darkroom.champion import Moved

Name = Literal[
    "darkroom.data.new",
    "darkroom.data.refused",
    "darkroom.challenger.waiting",
    "darkroom.champion.moved",
    "darkroom.champion.drifted",
    "darkroom.retraining.due",
]


def announce(name: Name, about: str, payload: dict[str, Any]) -> None:
    """Emit an event about a recipe or a model, by its name; strings and numbers only in ``payload``, and no secrets."""
    kind = "recipe" if name.startswith("darkroom.data.") else "model"
    emit_event(
        name,
        resource={"prefect.resource.id": f"darkroom.{kind}.{about}", "prefect.resource.name": about},
        payload=payload,
    )


def announce_moves(moves: Iterable[Moved]) -> None:
    """Tell every move of a champion's alias, in order."""
    for moved in moves:
        announce("darkroom.champion.moved", moved.version.model, moved.told)
