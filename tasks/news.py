"""What is worth an event: data that nobody was told of yet. An hourly check of the same pictures says nothing."""

from darkroom.settings import Settings
from darkroom.store import write_json

from .events import announce


def tell_new(recipe: str, digest: str, manifest: str, rows: int) -> None:
    """Announce accepted data that is other than what was told, or trained on, last."""
    if remember(recipe, "new", digest):
        announce("darkroom.data.new", recipe, {"recipe": recipe, "manifest": manifest, "rows": rows})


def tell_refused(recipe: str, digest: str, why: str, page: str) -> None:
    """Announce a batch that the data gate refused, once; ``page`` is the address of what shows it."""
    if remember(recipe, "refused", digest):
        announce("darkroom.data.refused", recipe, {"recipe": recipe, "why": why, "page": page})


def remember(recipe: str, what: str, digest: str) -> bool:
    """Keep what was told last; whether it is other than before."""
    path = Settings().root / "told" / f"{recipe}-{what}.json"
    if path.is_file() and digest in path.read_text("utf-8"):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"digest": digest})
    return True
