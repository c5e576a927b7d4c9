"""Model versions are found by the data that their tags name, and carry a mark when pictures of these are removed."""

from dataclasses import replace
from typing import Any

from darkroom.registry import Version
from darkroom.versions import marks
from darkroom.versions.trace import trace


class Shelf:
    """The part of a registry that marks speak to."""

    def __init__(self, *versions: Version) -> None:
        self.kept = {one.version: one for one in versions}

    def models(self) -> list[str]:
        return ["painter"]

    def versions(self, model: str) -> list[Version]:
        return sorted(self.kept.values(), key=lambda one: int(one.version), reverse=True)

    def annotate(self, version: Version, *, tags: dict[str, str], description: str) -> Version:
        made = replace(version, tags={**version.tags, **tags}, description=description)
        self.kept[version.version] = made
        return made


def version(number: int, checked: str) -> Version:
    return Version(
        "painter", str(number), "run", {"darkroom.checked": checked, "darkroom.checkpoint": "c"}, "Promoted.", ()
    )


def test_versions_of_the_data_are_found_though_the_store_has_nothing_of_them(press: Any) -> None:
    one = press.version(press.files(*range(8)))
    two = press.version(press.files(*range(1, 8)))
    shelf: Any = Shelf(version(1, one.checked), version(2, two.checked), version(3, "elsewhere"))
    found = marks.holders(shelf, trace(["00.png"], "photos", press.store))
    assert [holder.version.version for holder in found] == ["1"]
    side = trace(["00.png"], "photos", press.store)[0].side
    assert found[0].sides == (side,)
    assert found[0].trained is (side == "train")
    assert len(marks.holders(shelf, trace(["01.png"], "photos", press.store))) == 2


def test_a_mark_is_written_once_grows_and_goes(press: Any) -> None:
    one = press.version(press.files(*range(8)))
    shelf: Any = Shelf(version(1, one.checked))
    rows = [row for row in trace(press.files(*range(8)), "photos", press.store) if row.side == "train"]
    for row in (rows[0], rows[0], rows[1]):
        (holder,) = marks.holders(shelf, [row])
        marks.mark(shelf, holder, "2026-01-02T03:04:05+00:00")
    said = marks.read(shelf.kept["1"].tags)
    assert said
    assert said["count"] == 2
    assert shelf.kept["1"].description.count("removed on request") == 1
    assert shelf.kept["1"].description.startswith("Promoted.\n\nTrained on 2 pictures")
    assert marks.unmark(shelf, [str(rows[0].id)]) == 1
    assert "Trained on 1 picture that was" in shelf.kept["1"].description
    assert marks.unmark(shelf, [str(rows[1].id)]) == 1
    assert shelf.kept["1"].description == "Promoted."
    assert marks.read(shelf.kept["1"].tags) is None
