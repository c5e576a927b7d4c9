"""A recipe's sections with every field optional: what a form asks of a person who changes some of them for one run."""

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .section import Section


def with_sections(base: type[BaseModel], recipe: type[Section]) -> type[BaseModel]:
    """``base`` and, for each section of the recipe, a field that changes some of the section's own."""
    fields: dict[str, Any] = {}
    for name, info in recipe.model_fields.items():
        if section := section_of(info.annotation):
            about = Field(None, alias=info.alias, description=summary(section), json_schema_extra={"section": True})
            fields[name] = (optional(section) | None, about)
    return create_model("Overrides", __base__=base, __doc__=base.__doc__, **fields)


@cache
def optional(section: type[Section]) -> Any:
    """A section without its rules between fields, each of which may be left as the recipe has it."""
    fields: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        inner = section_of(info.annotation)
        fields[name] = (optional(inner) | None, _left(info, inner)) if inner else (_annotated(info), _left(info))
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model(f"{section.__name__}Overrides", __config__=config, __doc__=summary(section), **fields)


def changes(model: BaseModel, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names and values of the fields that a form was given."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        dotted = f"{prefix}{info.alias or name}"
        if isinstance(value, BaseModel) and type(value).__name__.endswith("Overrides"):
            yield from changes(value, f"{dotted}.")
        elif value is not None:
            yield dotted, _plain(value)


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, also where it may be None; None where it holds something else."""
    choices = [one for one in (get_args(annotation) or (annotation,)) if one is not type(None)]
    if get_origin(annotation) in (dict, tuple, list) or len(choices) != 1:
        return None
    return choices[0] if isinstance(choices[0], type) and issubclass(choices[0], Section) else None


def summary(section: type[Section]) -> str:
    """The first line of a section's docstring."""
    return (section.__doc__ or "").strip().partition("\n")[0]


def _annotated(info: FieldInfo) -> Any:
    """The field's type with its constraints, or None."""
    kept: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return kept | None


def _left(info: FieldInfo, inner: type[Section] | None = None) -> Any:
    """A field that is left out, with the recipe's description and what it is where a recipe does not say."""
    about = info.description or (summary(inner) if inner else "")
    shown = info.default not in (PydanticUndefined, None) and not isinstance(info.default, BaseModel)
    if shown and info.default not in ("", {}, (), []):
        about = f"{about} (Where the recipe says nothing: {info.default}.)".strip()
    return Field(None, alias=info.alias, description=about or None)


def _plain(value: Any) -> Any:
    """Values as TOML has them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value
