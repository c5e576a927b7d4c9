"""A section of a recipe: frozen, unknown keys refused, and aware of which of its fields can change a result."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# A field with this mark says how often or under which name, not what: it is left out of every digest.
NO_EFFECT = "no effect on results"
NoEffect = Field(json_schema_extra={"no_effect": True})

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest_fields(self) -> dict[str, Any]:
        """The fields that can change a result and differ from their defaults, ready for JSON."""
        dumped = self.model_dump(mode="json", exclude_defaults=True)
        marked = type(self).model_fields
        return {
            key: value.digest_fields() if isinstance(value := getattr(self, key), Section) else dumped[key]
            for key in sorted(dumped)
            if not _has_no_effect(marked[key].json_schema_extra)
        }


def _has_no_effect(extra: object) -> bool:
    return isinstance(extra, dict) and bool(extra.get("no_effect"))
