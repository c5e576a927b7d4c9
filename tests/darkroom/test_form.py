"""A form has every field of a recipe, says what it means, and changes what it is given and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from darkroom.form import section_of
from darkroom.recipe import Overrides, Recipe, Section, load


def leaves(model: Any, prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Dotted names and descriptions of all fields of a recipe, or of a form."""
    for name, info in model.model_fields.items():
        inner = section_of(info.annotation) if issubclass(model, Section) else nested(info.annotation)
        dotted = f"{prefix}{info.alias or name}"
        if inner:
            yield from leaves(inner, f"{dotted}.")
        else:
            yield dotted, info.description


def nested(annotation: Any) -> Any:
    found = [one for one in getattr(annotation, "__args__", ()) if getattr(one, "__name__", "").endswith("Overrides")]
    return found[0] if found else None


def test_every_field_of_every_section_is_there_with_its_description() -> None:
    of_recipe, of_form = dict(leaves(Recipe)), dict(leaves(Overrides))
    wanted = {name: text for name, text in of_recipe.items() if "." in name}
    assert wanted.keys() <= of_form.keys()
    for name, text in wanted.items():
        assert (of_form[name] or "").startswith(text or ""), name
    described = [name for name in wanted if of_form[name]]
    assert len(described) > 0.95 * len(wanted)


def test_a_form_is_the_same_as_its_fields_by_name() -> None:
    given = {"train": {"steps": 7, "objective": {"kind": "epsilon"}}, "register": {"promote": "ask"}, "seed": 3}
    by_name = {"train.steps": 7, "train.objective.kind": "epsilon", "register.promote": "ask", "seed": 3}
    assert Overrides.model_validate(given).assignments() == by_name
    assert load("digits", Overrides.model_validate(given)) == load("digits", Overrides(fields=by_name))
    assert load("digits", Overrides.model_validate({"train": {}, "gate": None})) == load("digits")


@pytest.mark.parametrize("wrong", [{"train": {"steps": 0}}, {"train": {"step": 7}}, {"gates": {}}])
def test_a_form_refuses_what_the_recipe_would(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overrides.model_validate(wrong)
