"""Data from source to version as its reviewer meets it: the quality flow, `check`, `data`, and going back."""

import json
import subprocess
import sys

FLOW = "import json; from flows.quality import quality; print(json.dumps(quality('tiny.toml'), default=str))"


def test_the_quality_flow_and_check_agree_and_a_run_goes_back(workshop) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLOW],
        cwd=workshop.folder,
        env={**workshop.environment, "DARKROOM_TEST_TOKEN": workshop.token},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scheduled = json.loads(done.stdout.splitlines()[-1])
    assert scheduled["decision"] == "accepted"
    checked = json.loads(workshop.command("check", "tiny.toml", "--json").stdout.splitlines()[-1])
    assert checked["digests"] == scheduled["digests"]
    assert checked["data"]["rows"] == 150

    (workshop.photos / "0003.png").write_bytes(b"not a picture")
    assert workshop.command("check", "tiny.toml").returncode == 0
    listed = json.loads(workshop.command("data", "list", "--json").stdout)["datasets"]["tiny"]
    assert [version["accepted"] for version in listed] == [150, 149]
    assert listed[1]["changed"] == 1
    refused = workshop.command("data", "quarantine").stdout
    assert "0003.png" in refused
    assert "undecodable" in refused
    told = workshop.command("data", "diff", "1", "2").stdout
    assert "0003.png" in told

    outcome = workshop.run("--data", "1", "--set", "train.steps=2")
    assert outcome["digests"]["checked"] == scheduled["digests"]["checked"]
    assert outcome["data"]["quarantined"] == 0
    gone = workshop.command("run", "tiny.toml", "--data", "7")
    assert (gone.returncode, "'7' is no version" in gone.stderr) == (2, True)


def test_a_new_recipe_is_written_once(workshop) -> None:
    done = workshop.command("new", "mine", "--images", "photos", "--out", "mine.toml")
    assert done.returncode == 0, done.stderr
    assert "150" in (workshop.folder / "mine.toml").read_text()
    again = workshop.command("new", "mine", "--images", "photos", "--out", "mine.toml")
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
