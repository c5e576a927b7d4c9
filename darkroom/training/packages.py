"""Optimisers whose packages not everybody has; asked without importing torch."""

import importlib.util

from darkroom.errors import RecipeError
from darkroom.recipe import Train

# Name in a recipe -> the package's module.
EXTRAS = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}


def available(plan: Train) -> None:
    """Raise :class:`RecipeError` when the optimiser's package is not installed; asked before anything long."""
    package = EXTRAS.get(plan.optimizer.name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise RecipeError(
            f"train.optimizer.name = {plan.optimizer.name!r} needs the package {package}, which is not installed: "
            "pip install 'darkroom[optimizers]', or choose adamw"
        )
