"""`darkroom data`: every command on a small store, as a person types it."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from darkroom.collect.manifest import picture_path
from darkroom.errors import RecipeError
from darkroom.versions import log
from flows import data

RECIPE = """
version = 1
name = "other-name"
[collect]
source = "folder"
path = "photos"
dataset = "photos"
[model]
vae = "builtin:digits-vae"
text_encoder = "builtin:digits-text-encoder"
[train]
steps = 1
"""


@pytest.fixture
def call(press: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``call("diff", "1", "2")`` gives what the command prints, or its JSON object."""
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "mlruns"))
    monkeypatch.delenv("DARKROOM_MLFLOW_URI", raising=False)
    root = argparse.ArgumentParser()
    data.add_parsers(root.add_subparsers())

    def run(*arguments: str, status: int = 0) -> Any:
        options = root.parse_args(["data", *arguments])
        assert options.command(options) == status
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    return run


def test_the_life_of_a_data_set(press: Any, call: Any, tmp_path: Path) -> None:
    files = {**press.files(*range(1, 6)), "soft.png": press.shot(9, faults=("spam",))}
    one = press.version(files)
    assert "spam" in call("quarantine", "photos")
    rows = call("quarantine", "--json")["rows"]
    assert [(row["path"], row["reasons"]) for row in rows] == [("soft.png", ["check: spam"])]

    assert "released: spam" in call("release", rows[0]["row_id"][:10], "--note", "looks fine")
    two = press.version(files)
    assert call("quarantine", "--json")["rows"] == []
    found = call("diff", "1", "2", "--json")
    assert found["counts"] == {"readmitted": 1, "released": 1}
    assert "released" in call("diff", "1", "latest")
    assert "  no difference" in call("diff", "2", "2")

    assert "named spring" in call("name", "1", "spring")
    listed = call("list", "--json")["datasets"]["photos"]
    assert [(each["checked"], each["name"]) for each in listed] == [(one.checked, "spring"), (two.checked, None)]
    lines = call("list").splitlines()
    assert lines[0] == "photos: 2 versions"
    assert [line[0] for line in lines[1:]] == [" ", "*"]
    assert call("show", "spring", "--json")["version"]["number"] == 1
    assert two.manifest in call("show")

    assert "--data spring" in call("restore", "spring")
    assert "6 pictures" in call("restore", "2", "--to", str(tmp_path / "back"))
    assert "no longer released" in call("unrelease", rows[0]["row_id"])
    assert press.version(files) == log.resolve("photos", "spring", press.store)


def test_a_removed_picture_is_traced_erased_and_kept_out(press: Any, call: Any) -> None:
    version = press.version(press.files(*range(6)))
    shards, checkpoint = press.train(version)
    rows = call("trace", "03.png", "--json")["appearances"]
    picture = press.shot(3).id
    assert [row["id"] for row in rows] == [picture]
    assert checkpoint[:12] in call("trace", press.row_id("03.png")[:8])
    path = picture_path(press.store, picture)
    found = call("remove", picture[:12], "--note", "they asked", "--json")
    assert {one["digest"] for one in found["used"]} == {shards, checkpoint}
    assert path.is_file()
    assert "2 files with their bytes erased" in call("remove", picture[:12], "--erase")
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)
    assert press.version(press.files(*range(6))).accepted == 5
    assert "1 request withdrawn" in call("remove", "--undo", picture[:8])


def test_removing_a_row_removes_its_place_and_its_picture(press: Any, call: Any) -> None:
    press.version(press.files(1, 2))
    found = call("remove", press.row_id("01.png")[:8], "--json")["removed"]
    assert {(one["row_id"], one["id"]) for one in found} == {(press.row_id("01.png"), None), (None, press.shot(1).id)}
    renamed = press.version({"01.png": press.shot(7), "new.png": press.shot(1), **press.files(2)})
    assert renamed.accepted == 1


def test_a_picture_to_come_can_be_removed_by_its_whole_id(press: Any, call: Any) -> None:
    call("remove", press.shot(1).id)
    assert press.version(press.files(1, 2)).accepted == 1
    with pytest.raises(RecipeError, match="all 64 digits"):
        call("remove", "0" * 12)


def test_the_data_set_is_named_by_a_recipe_its_own_name_or_not_at_all(
    press: Any, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    press.version(press.files(1))
    for place in ("mine.toml", "photos"):
        assert "version 1" in call("show", "--recipe", place)
        assert "in quarantine" in call("quarantine", place)
    press.dataset = "second"
    press.version(press.files(1))
    with pytest.raises(RecipeError, match="2 data sets here: name one of photos, second with --recipe"):
        call("show")
    with pytest.raises(RecipeError, match="no recipe 'nowhere'"):
        call("show", "--recipe", "nowhere")
    assert len(call("trace", "01.png", "--json")["appearances"]) == 2


def test_before_the_first_check_every_command_says_what_to_do(call: Any) -> None:
    assert "darkroom check RECIPE" in call("list")
    for command in (["show"], ["diff", "1", "2"], ["quarantine"], ["release", "0" * 8], ["restore", "1"]):
        with pytest.raises(RecipeError, match="darkroom check RECIPE"):
            call(*command)
    with pytest.raises(RecipeError, match="no row, picture or path"):
        call("trace", "x.png")


def test_hostile_names_cannot_steer_the_terminal(press: Any, call: Any) -> None:
    hostile = "\x1b[2J\x9b31m\u202egnp\n.png"
    one = press.version({hostile: press.shot(1, faults=("\x1b]0;title\x07",)), **press.files(2)})
    press.version(press.files(2))
    for command in (["quarantine", "--version", "1"], ["diff", "1", "2"], ["trace", hostile]):
        for extra in ([], ["--json"]):
            text = call(*command, *extra)
            text = json.dumps(text) if extra else text
            assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert one.quarantined == 1


def test_lists_are_cut_and_say_so(press: Any, call: Any) -> None:
    press.version({f"{number}.png": press.shot(number, faults=("spam",)) for number in range(7)})
    short = call("quarantine", "--limit", "3")
    assert short.count(".png") == 3
    assert "and 4 more" in short
    assert call("quarantine", "--limit", "0").count(".png") == 7
    assert call("quarantine", "--kind", "border", "--json")["rows"] == []


@pytest.mark.parametrize(
    "command",
    ["list", "show", "name", "diff", "restore", "quarantine", "release", "unrelease", "trace", "remove"],
)
def test_every_command_explains_itself(call: Any, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(command, "--help")
    assert caught.value.code == 0
    assert "--recipe" in capsys.readouterr().out
