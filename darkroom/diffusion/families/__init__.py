"""The kinds of diffusers pipelines that darkroom trains, by the name that a recipe has for each."""

from importlib import import_module
from typing import Any

from darkroom.errors import RecipeError

from .base import Family as Family
from .base import Parts as Parts
from .base import Shape as Shape

# Name in a recipe -> module with its class FAMILY. A new kind is a file and a line here.
MODULES = {
    "stable-diffusion": "stable_diffusion",
    "stable-diffusion-xl": "stable_diffusion_xl",
    "stable-diffusion-3": "stable_diffusion_3",
    "flux": "flux",
    "dit": "dit",
    "unconditional": "unconditional",
}


def family(name: str) -> Family:
    """The kind of this name."""
    found: Family = import_module(f".{MODULES[name]}", __name__).FAMILY
    return found


def family_of(pipeline: Any) -> Family:
    """The kind of a pipeline; raises :class:`RecipeError` for a class that darkroom does not know."""
    return family_of_class(type(pipeline).__name__)


def family_of_class(kind: str) -> Family:
    """The kind of this class of diffusers, likewise."""
    for name in MODULES:
        if (found := family(name)).pipeline == kind:
            return found
    known = ", ".join(family(name).pipeline for name in MODULES)
    raise RecipeError(f"darkroom does not know the pipeline class {kind}; it knows {known}")
