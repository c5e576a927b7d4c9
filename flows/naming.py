"""What a run is called on Prefect's page."""

from urllib.parse import urlsplit

from prefect.runtime import flow_run


def after_recipe() -> str:
    """The flow and its recipe: a file's or an address's last part, not the way to it."""
    return f"{flow_run.flow_name} {short(str(flow_run.parameters['recipe']))}"


def short(recipe: str) -> str:
    """A recipe as it is spoken of: ``digits`` for ``recipes/digits.toml`` and ``https://host/digits.toml?token=1``."""
    path = urlsplit(recipe).path if recipe.startswith(("http://", "https://")) else recipe
    return path.rstrip("/").rpartition("/")[2].removesuffix(".toml")
