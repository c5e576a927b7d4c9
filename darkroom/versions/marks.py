"""Model versions that hold pictures: found by what their tags say of their data, and marked when these are removed."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.registry import Registry, Version

from .trace import Appearance

TAG = "darkroom.removed_pictures"
CHECKED = "darkroom.checked"
NAMED = 100  # pictures that a mark names; a tag has an end
LINE = re.compile(r"\n*Trained on [\d,]+ pictures? (that were|that was) removed on request\b.*", re.DOTALL)


@dataclass(frozen=True)
class Holder:
    """A model version and the sides of its data that have the picture."""

    version: Version
    sides: tuple[str, ...]
    pictures: tuple[str, ...]

    @property
    def trained(self) -> bool:
        """Whether it was trained on one of them."""
        return "train" in self.sides


def holders(registry: Registry, appearances: Iterable[Appearance]) -> list[Holder]:
    """Every model version made of data with these pictures, whether or not the store still has what it was made of."""
    sides: dict[str, dict[str, set[str]]] = {}
    for one in appearances:
        if one.version is not None and one.side is not None and one.id:
            sides.setdefault(one.version.checked, {}).setdefault(one.side, set()).add(one.id)
    found = []
    for model in registry.models() if sides else ():
        for version in reversed(registry.versions(model)):
            mine = sides.get(version.tags.get(CHECKED, ""))
            if mine:
                pictures = sorted(mine.get("train") or set().union(*mine.values()))
                found.append(Holder(version, tuple(sorted(mine)), tuple(pictures)))
    return found


def mark(registry: Registry, holder: Holder, when: str) -> None:
    """Say on a version, for good and once, that it was trained on pictures which were removed since."""
    before = read(holder.version.tags)
    pictures = sorted({*(before or {}).get("pictures", ()), *(one[:12] for one in holder.pictures)})
    if before is None or before["pictures"] != pictures[:NAMED]:
        since = before["since"] if before else when
        _write(registry, holder.version, {"count": len(pictures), "pictures": pictures[:NAMED], "since": since})


def unmark(registry: Registry, pictures: Iterable[str]) -> int:
    """Take pictures whose removal was withdrawn out of every mark; returns how many versions that changed."""
    gone, changed = {one[:12] for one in pictures}, 0
    for model in registry.models() if gone else ():
        for version in registry.versions(model):
            said = read(version.tags)
            if said and gone.intersection(said["pictures"]):
                left = [one for one in said["pictures"] if one not in gone]
                _write(registry, version, {**said, "count": len(left), "pictures": left})
                changed += 1
    return changed


def read(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """What a version's mark says: ``count``, ``pictures`` (their first digits) and ``since``; None without one."""
    try:
        said = json.loads(tags.get(TAG) or "null")
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("count") else None


def words(said: Mapping[str, Any]) -> str:
    """A mark as a sentence."""
    count = said["count"]
    what = "picture that was" if count == 1 else "pictures that were"
    return f"Trained on {count:,} {what} removed on request, {said['since'][:10]}: train again without."


def _write(registry: Registry, version: Version, said: Mapping[str, Any]) -> None:
    text = LINE.sub("", version.description)
    if said["count"]:
        text = f"{text}\n\n{words(said)}".strip()
    registry.annotate(version, tags={TAG: json.dumps(said)}, description=text)
