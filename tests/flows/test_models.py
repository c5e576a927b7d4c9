"""A registered version explained, made again and shown, from what MLflow has of it."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import darkroom
from darkroom import history
from darkroom.registry import Registry
from darkroom.report import chronicle
from darkroom.settings import Settings
from darkroom.store import file_digest
from darkroom.tracking import open_registry

SECRET = "planted-9f2c71"


@pytest.fixture(scope="module")
def second(finished) -> dict[str, Any]:
    """The outcome of a run that added a worse version, with secrets in its environment."""
    workshop, _ = finished
    hardly = ("--set", "train.steps=1", "--set", "train.learning_rate=2e-6")
    found: dict[str, Any] = workshop.run(*hardly, AWS_SECRET_ACCESS_KEY=SECRET, HF_TOKEN=SECRET)
    return found


def registry_of(workshop) -> Registry:
    return open_registry(Settings(home=workshop.home), "tiny")


def last_json(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def far_away(workshop, folder: Path) -> Any:
    """The same MLflow seen from a machine that has nothing else: neither store nor recipe."""
    folder.mkdir()
    address = {"DARKROOM_HOME": str(folder / "mlruns"), "DARKROOM_MLFLOW_URI": f"sqlite:///{workshop.home}/mlflow.db"}
    return replace(workshop, folder=folder, environment=workshop.environment | address)


def aliases_and_versions(workshop) -> list[tuple[str, tuple[str, ...], dict[str, str]]]:
    return [(one.version, one.aliases, one.tags) for one in registry_of(workshop).versions("tiny")]


def test_a_version_is_explained_where_there_is_no_store(finished, tmp_path: Path) -> None:
    workshop, outcome = finished
    elsewhere = far_away(workshop, tmp_path / "elsewhere")
    found = last_json(elsewhere.command("explain", "tiny", "--json"))
    assert found["missing"] == []
    assert found["model"]["uri"] == outcome["model"]["uri"]
    for kind in ("manifest", "checked", "shards", "checkpoint"):
        assert found["digests"][kind] == outcome["digests"][kind]
    data = found["data"]
    assert (data["checked"], data["manifest"]) == (outcome["digests"]["checked"], outcome["digests"]["manifest"])
    assert (data["version"], data["rows"], data["train"]) == (1, 150, outcome["data"]["train"])
    assert found["recipe"]["train"]["steps"] == 24
    assert found["recipe"]["train"]["batch"] == 16
    assert found["recipe"]["collect"]["path"] == "photos"
    assert found["measures"].keys() >= outcome["metrics"].keys()
    assert found["measures"]["fd_clip_digits"] == pytest.approx(outcome["metrics"]["fd_clip_digits"])
    assert found["verdict"]["decision"] == "PASS"
    assert found["environment"]["packages"].keys() >= {"torch", "diffusers", "transformers", "numpy", "darkroom"}
    assert found["device"]["training"]["device"] == "cpu"
    assert found["code"]["darkroom"]
    assert found["links"]["flow_run"] == outcome["run"]["url"]
    version = open_registry(Settings(home=workshop.home), "tiny").resolve("tiny/1")
    assert version.tags[history.RUN] in found["links"]["samples"], "those of its last evaluation"
    assert not (elsewhere.folder / "mlruns" / "store").exists()

    text = elsewhere.command("explain", "models:/tiny/1")
    assert text.returncode == 0, text.stderr
    for words in ("tiny, version 1 (champion)", "by gate", "steps = 24", "torch ", found["links"]["run"]):
        assert words in text.stdout
    unknown = elsewhere.command("explain", "tiny/9")
    assert unknown.returncode == 2
    assert "tiny/1 = tiny@champion" in unknown.stderr


def test_neither_places_nor_secrets_are_recorded(finished, second) -> None:
    workshop, _ = finished
    registry = registry_of(workshop)
    for number in ("1", second["model"]["version"]):
        version = registry.resolve(f"tiny/{number}")
        run = registry.run(version.run_id)
        seen = json.dumps([version.tags, run["data"], run["inputs"]])
        for name in ("recipe.json", "provenance.json", "verdict.json"):
            content = registry.artifact(version.run_id, name)
            assert content, name
            seen += content.decode()
        assert str(workshop.folder) not in seen
        assert SECRET not in seen
    files = [path for path in (workshop.home / "artifacts").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    pipelines = [path for path in files if "pipeline" in path.parts and path.suffix in (".json", ".md")]
    assert len(pipelines) > 8
    places = (str(workshop.folder), str(Path(darkroom.__file__).parent))
    assert not [path for path in pipelines if any(place in path.read_text("utf-8") for place in places)]


def test_a_version_made_again_is_the_same_and_changes_nothing(finished) -> None:
    workshop, outcome = finished
    before = aliases_and_versions(workshop)
    again = last_json(workshop.command("run", "models:/tiny/1", "--json"))
    assert (again["decision"], again["reproduced"], again["differs"]) == ("unchanged", True, None)
    assert set(again["reused"]) >= {"preprocess", "train"}
    assert again["digests"]["checkpoint"] == outcome["digests"]["checkpoint"]
    assert again["model"] == outcome["model"]
    assert aliases_and_versions(workshop) == before


def test_trained_again_it_ends_in_the_same_bytes_and_other_bytes_are_named(finished) -> None:
    workshop, outcome = finished
    before = aliases_and_versions(workshop)
    checkpoint = workshop.home / "store" / "checkpoint" / outcome["digests"]["checkpoint"]
    weights = "pipeline/unet/diffusion_pytorch_model.safetensors"
    sha256 = file_digest(checkpoint / weights)

    content = bytearray((checkpoint / weights).read_bytes())
    content[-1] ^= 1
    (checkpoint / weights).write_bytes(content)
    spoilt = last_json(workshop.command("run", "tiny@champion", "--json"))
    assert (spoilt["reproduced"], spoilt["differs"]) == (False, weights)

    shutil.rmtree(checkpoint)
    again = last_json(workshop.command("run", "tiny/1", "--json"))
    assert "train" not in again["reused"]
    assert (again["reproduced"], again["differs"]) == (True, None)
    assert file_digest(checkpoint / weights) == sha256
    assert aliases_and_versions(workshop) == before


def test_what_cannot_be_made_again_is_said_in_one_sentence(finished, tmp_path: Path) -> None:
    workshop, _ = finished
    nowhere = far_away(workshop, tmp_path / "nowhere").command("run", "tiny/1")
    assert nowhere.returncode == 2
    assert "its data, version 1 of the data set 'tiny', are not in this store" in nowhere.stderr
    for wrong in (("--set", "train.steps=2"), ("--data", "1"), ("--fresh", "check")):
        done = workshop.command("run", "models:/tiny/1", *wrong)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1

    table = (workshop.home / "store" / "checked").glob("*/checked.parquet")
    import pandas as pd

    picture = pd.read_parquet(next(table))["id"].iloc[0]
    erased = tmp_path / "erased"
    shutil.copytree(workshop.home / "store", erased / "mlruns" / "store")
    other = replace(
        workshop,
        environment=workshop.environment
        | {
            "DARKROOM_HOME": str(erased / "mlruns"),
            "DARKROOM_MLFLOW_URI": f"sqlite:///{workshop.home}/mlflow.db",
        },
    )
    assert other.command("data", "remove", picture, "--erase").returncode == 0
    done = other.command("run", "tiny/1")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "darkroom: models:/tiny/1 cannot be made again: its data, version 1 of the data set 'tiny', are gone: 1 of the "
        "pictures were erased on request"
    ]


def test_the_history_tells_who_promoted_what(finished, second) -> None:
    workshop, outcome = finished
    number = second["model"]["version"]
    assert workshop.command("promote", "tiny", number, "--why", "to see <b>it</b>").returncode == 0
    assert workshop.command("promote", "tiny", "1").returncode == 0
    found = history.read(registry_of(workshop), "tiny")
    told = [(move.version, move.who == history.GATE, move.against and move.against.version) for move in found.moves]
    assert told == [("1", True, None), (number, False, "1"), ("1", False, number)]
    assert found.moves[1].against == history.Against("1", outcome["digests"]["checkpoint"])
    assert [one.against.version for one in found.comparisons] == ["1"] * (len(found.entries) - 1)
    (judged,) = next(entry for entry in found.entries if entry.version.version == number).judged
    rule = second["verdict"]["rules"][0]
    assert (judged.gain, judged.low, judged.high) == (rule["gain"], rule["low"], rule["high"])

    registry, newest = registry_of(workshop), found.entries[0].version
    whole = (registry.artifact(newest.tags[history.RUN], chronicle.PAGE) or b"").decode()
    assert "to see &lt;b&gt;it&lt;/b&gt;" in whole
    words = registry._client.get_registered_model("tiny").description
    assert words.count(chronicle.MARK) == 1
    assert "to see \\<b\\>it" in words

    shown = last_json(workshop.command("report", "tiny", "--json"))
    text = Path(shown["history"]).read_text("utf-8")
    assert "to see &lt;b&gt;it&lt;/b&gt;" in text
    assert "× 0.05 = " in text
    page = Path(shown["report"])
    content = page.read_bytes()
    page.unlink()
    assert last_json(workshop.command("report", "tiny/1", "--json"))["report"] == str(page)
    assert page.read_bytes() == content
