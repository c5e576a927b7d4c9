"""A base of the registry through whole runs: what it means is decided once, and no new data means no training."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from darkroom.collect import digits

MORE = 12
BASE = ("--set", "model.base=champion")


def add_pictures(photos: Path) -> None:
    """Some scans that the workshop does not have yet."""
    have = len(list(photos.glob("*.png")))
    with (photos / "metadata.jsonl").open("a") as file:
        for item in islice(digits.items(), have, have + MORE):
            (photos / item.path).write_bytes(item.read())
            line = {"file_name": item.path, "text": item.caption, "label": item.label, "license": item.licence}
            file.write("\n" + json.dumps(line, ensure_ascii=False))


def base_of(workshop: Any, outcome: dict[str, Any]) -> str | None:
    """What the recipe beside a checkpoint says that it started from."""
    folder = workshop.home / "store/checkpoint" / outcome["digests"]["checkpoint"]
    found: str | None = json.loads((folder / "recipe.json").read_text())["model"]["base"]
    return found


def test_a_champion_is_trained_further_on_new_data_alone(workshop) -> None:
    first = workshop.run(*BASE)
    assert (first["decision"], base_of(workshop, first)) == ("promoted", None), "from scratch while there is none"
    add_pictures(workshop.photos)
    further = workshop.run(*BASE)
    assert base_of(workshop, further) == "models:/tiny/1"
    assert "train" not in further["reused"]
    again = workshop.run(*BASE)
    assert "train" in again["reused"], "the champion that it may have brought forth is no reason to train"
    assert again["digests"]["checkpoint"] == further["digests"]["checkpoint"]
