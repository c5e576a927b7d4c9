"""What goes wrong is said in one sentence, with the right exit status, and nothing is lost."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from darkroom import process


def edit(workshop, old: str, new: str) -> None:
    path = workshop.folder / "tiny.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def last_words(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line on stderr: the sentence that a person reads."""
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 24", "stpes = 24", "train.stpes is not a field; did you mean train.steps?"),
        ("batch = 16", "batch = 0", "train.batch = 0"),
        ('source = "folder"', 'source = "ftp"', "collect.source = 'ftp'"),
        ("version = 1", "version = ", "is not valid TOML"),
        ("builtin:digits-vae", "builtin:nothing", "builtin:nothing is not shipped with darkroom"),
        ('features = "builtin:clip-digits"', 'features = "builtin:eyes"', "builtin:eyes is not shipped with darkroom"),
        ('vae = "builtin:digits-vae"', 'vae = "photos"', "model.vae = 'photos': "),
        ("size = 16", "size = 16\nbuckets = 3\nbucket_step = 24", "is no multiple of preprocess.bucket_step = 24"),
        ("[evaluate]", f'[evaluate]\nclip_sha256 = "{"0" * 64}"', "evaluate.clip_sha256: the weights of"),
    ],
)
def test_a_wrong_recipe_is_named_before_anything_starts(workshop, old: str, new: str, words: str) -> None:
    edit(workshop, old, new)
    done = workshop.command("run", "tiny.toml")
    assert done.returncode == 2
    assert words in last_words(done)
    assert not (workshop.home / "store").exists()


def test_a_missing_or_unreadable_recipe(workshop) -> None:
    done = workshop.command("run", "nowhere.toml")
    assert (done.returncode, "nowhere.toml" in last_words(done)) == (2, True)
    (workshop.folder / "tiny.toml").write_bytes(b"\xff\xfe\x00")
    done = workshop.command("run", "tiny.toml")
    assert (done.returncode, "cannot be read" in last_words(done)) == (2, True)


def test_an_empty_data_set(workshop) -> None:
    for path in workshop.photos.iterdir():
        path.unlink()
    done = workshop.command("run", "tiny.toml")
    assert done.returncode == 2
    assert "has no pictures" in last_words(done)


def test_one_corrupt_picture_among_good_ones(workshop) -> None:
    path = workshop.photos / "0003.png"
    path.write_bytes(path.read_bytes()[:90])
    outcome = workshop.run("--set", "train.steps=2")
    assert outcome["data"]["quarantined"] == 1
    import pandas as pd

    quarantine = pd.read_parquet(workshop.home / "store/checked" / outcome["digests"]["checked"] / "quarantine.parquet")
    assert list(quarantine["path"]) == ["0003.png"]
    assert quarantine["reasons"][0][0].startswith("check: undecodable")


def test_refused_data_stops_the_run_and_shows_the_report(workshop) -> None:
    for path in sorted(workshop.photos.glob("*.png"))[:120]:
        path.write_bytes(b"broken")
    done = workshop.command("run", "tiny.toml", "--json")
    assert done.returncode == 3
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["decision"] == "refused_data"
    page = Path(outcome["reason"].split("Open ")[1].rstrip("."))
    assert page.is_file()
    assert not (workshop.home / "store/shards").exists()
    assert workshop.command("check", "tiny.toml").returncode == 3


def test_a_full_disk_stops_before_long_work(workshop) -> None:
    done = workshop.command("run", "tiny.toml", DARKROOM_RESERVE_BYTES=str(10**18))
    assert done.returncode == 5
    assert "are free: make room there" in last_words(done)
    assert not list((workshop.home / "store").glob("checkpoint/*"))


def test_a_divergence_is_explained_and_leaves_nothing_half_done(workshop) -> None:
    done = workshop.command("run", "tiny.toml", "--set", "train.learning_rate=10", "--set", "train.guard.retries=0")
    assert done.returncode == 5
    assert "training diverged at step" in last_words(done)
    assert "Lower train.learning_rate (10.0)" in last_words(done)
    assert not list((workshop.home / "store").glob("checkpoint/*"))


def test_mlflow_away_loses_nothing(workshop) -> None:
    closed = f"http://127.0.0.1:{process.free_port()}"
    done = workshop.command("run", "tiny.toml", DARKROOM_MLFLOW_URI=closed, DARKROOM_SERVICE_RETRIES="1")
    assert done.returncode == 4
    assert closed in last_words(done)
    assert len(list((workshop.home / "store/checkpoint").iterdir())) == 1
    outcome = workshop.run()
    assert {"train", "evaluate"} <= set(outcome["reused"])
    assert outcome["decision"] == "promoted"
    from darkroom.settings import Settings
    from darkroom.tracking import open_registry

    registry = open_registry(Settings(home=workshop.home), "tiny")
    points = registry._client.get_metric_history(outcome["model"]["run_id"], "train/loss")
    assert [point.step for point in points] == list(range(2, 25, 2))


def test_prefect_away(workshop) -> None:
    closed = f"http://127.0.0.1:{process.free_port()}/api"
    done = workshop.command("run", "tiny.toml", PREFECT_API_URL=closed)
    assert done.returncode == 4
    assert closed in last_words(done)


@pytest.mark.slow
def test_prefect_lost_in_the_middle(workshop, lost_server) -> None:
    url, server = lost_server
    running = workshop.start(
        "run", "tiny.toml", "--set", "train.steps=300", PREFECT_API_URL=url, PREFECT_CLIENT_MAX_RETRIES="1"
    )
    begun(workshop, running)
    process.stop(server, 0)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 4, err[-3000:]
    assert "what was made is kept" in err.strip().splitlines()[-1]
    assert not workshop.left_over()
    outcome = workshop.run("--set", "train.steps=300")
    assert outcome["decision"] == "promoted"
    assert "preprocess" in outcome["reused"]


def begun(workshop, running: "subprocess.Popen[str]") -> None:
    """Wait until the training has saved something."""
    deadline = time.monotonic() + 120
    while not list((workshop.home / "store/.work").glob("checkpoint-*/checkpoints/step-*")):
        assert running.poll() is None, running.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_training_is_carried_on(workshop, number: int) -> None:
    running = workshop.start("run", "tiny.toml", "--set", "train.steps=5000", "--set", "train.checkpoint_every=50")
    begun(workshop, running)
    folder = workshop.home / "store/.work"
    running.send_signal(number)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130, err[-2000:]
    assert "the same command goes on from here" in err
    assert not workshop.left_over()
    saved = max(path.name for path in folder.glob("checkpoint-*/checkpoints/step-*"))
    assert int(saved.removeprefix("step-")) > 0


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(workshop) -> None:
    long = ("--set", "train.steps=1500", "--set", "train.checkpoint_every=50")
    running = workshop.start("run", "tiny.toml", *long)
    begun(workshop, running)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)
    saved = sorted((workshop.home / "store/.work").glob("checkpoint-*/checkpoints/step-*"))
    assert len(saved) == 2, "the newest and the one before are kept"
    for path in saved[-1].glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    outcome = workshop.run(*long)
    events = (Path(outcome["paths"]["pipeline"]).parent / "events.jsonl").read_text().splitlines()
    notes = [json.loads(line)["note"] for line in events if "note" in line]
    step = int(saved[0].name.removeprefix("step-"))
    assert f"checkpoint {saved[-1].name} is damaged; training goes on from step {step}" in notes


def test_wrong_commands(workshop) -> None:
    assert workshop.command("nonsense").returncode == 2
    assert workshop.command("run").returncode == 2
    assert workshop.command("generate", "tiny@champion", "x", "--count", "0").returncode == 2
    done = workshop.command("generate", "tiny@champion", "x")
    assert done.returncode == 2
    assert "tiny" in last_words(done)
