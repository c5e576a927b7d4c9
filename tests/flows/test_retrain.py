"""The main flow, run for real: what it leaves behind, and that nothing is done twice."""

import html
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.recipe import Overrides
from darkroom.registry import Registry
from darkroom.settings import Settings
from darkroom.tracking import open_registry


def registry_of(workshop) -> Registry:
    return open_registry(Settings(home=workshop.home), "tiny")


def test_the_outcome_says_what_was_made(finished) -> None:
    workshop, outcome = finished
    assert outcome["decision"] == "promoted"
    assert outcome["model"]["uri"] == "models:/tiny/1"
    assert outcome["reused"] == []
    assert outcome["run"]["name"] == "retrain tiny"  # for tiny.toml
    data = outcome["data"]
    assert data["rows"] == 150
    assert data["train"] + data["validation"] == 150 - data["quarantined"]
    assert set(outcome["digests"]) == {"manifest", "checked", "shards", "checkpoint", "evaluation", "verdict"}
    for path in outcome["paths"].values():
        assert Path(path).exists()
    for stage in ("collect", "check", "preprocess", "train", "evaluate", "register"):
        assert outcome["seconds"][stage] >= 0
    assert {"fd_clip_digits", "clip_score_digits", "denoising_mse", "denoising_rmse", "denoising_mae"} <= set(
        outcome["metrics"]
    )
    assert outcome["metrics"]["reconstruction_psnr"] > 20
    assert not workshop.left_over()


@pytest.mark.parametrize("gate", [{"gate.measure": "frechet"}, {"gate.guards": {"frechet": 0.05}}])
def test_too_few_pictures_for_a_frechet_distance_are_refused_before_any_is_collected(
    gate: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.retrain import retrain

    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    with pytest.raises(RecipeError, match=r"wants 128 pictures at the first look, and gate\.first is 100: "):
        retrain.fn("digits", Overrides(fields={"gate.first": 100, **gate}))
    assert not list(tmp_path.iterdir())


def test_mlflow_has_one_run_with_everything_and_the_champion(finished) -> None:
    workshop, outcome = finished
    registry = registry_of(workshop)
    champion = registry.with_alias("tiny", "champion")
    assert champion is not None
    assert champion.version == "1"
    for kind, digest in outcome["digests"].items():
        assert champion.tags[f"darkroom.{kind}"] == digest
    assert "PASS" in champion.description
    run = registry.run(champion.run_id)
    assert run["info"]["status"] == "FINISHED"
    assert run["data"]["params"]["train.steps"] == "24"
    assert len(run["inputs"]["dataset_inputs"]) == 1
    history = registry._client.get_metric_history(champion.run_id, "train/loss")
    assert [point.step for point in history] == list(range(2, 25, 2))
    assert {"validation/loss", "fd_clip_digits"} <= set(run["data"]["metrics"])


def test_prefect_shows_the_run_its_stages_and_artifacts(finished, prefect_api) -> None:
    def ask(what: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        answer = prefect_api.post(f"/{what}/filter", json=body)
        answer.raise_for_status()
        return answer.json()

    _, outcome = finished
    flow_run = ask("flow_runs", {"flow_runs": {"id": {"any_": [outcome["run"]["id"]]}}})[0]
    assert flow_run["state_type"] == "COMPLETED"
    only = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    tasks = {task["name"]: task["state_type"] for task in ask("task_runs", only)}
    assert set(tasks) == {"collect", "check", "preprocess", "train", "evaluate", "compare", "report", "register"}
    assert set(tasks.values()) == {"COMPLETED"}
    artifacts = {artifact["key"]: artifact for artifact in ask("artifacts", only)}
    assert {"data-quality", "loss-curve", "sample-grid", "verdict", "registered-version", "report"} <= set(artifacts)
    assert artifacts["sample-grid"]["data"].startswith("data:image/png;base64,")
    assert "http://127.0.0.1:4280/store/checked/" in artifacts["data-quality"]["data"]
    assert "file://" not in json.dumps(artifacts)


def test_run_again_with_nothing_changed(finished) -> None:
    workshop, outcome = finished
    again = workshop.run()
    assert again["decision"] == "unchanged"
    assert again["digests"] == outcome["digests"]
    assert set(again["reused"]) >= {"collect", "check", "preprocess", "train", "evaluate", "register"}
    assert again["model"] == outcome["model"]


def test_only_evaluate_changes(finished) -> None:
    workshop, outcome = finished
    again = workshop.run("--set", "evaluate.denoising_timesteps=3")
    assert {"collect", "check", "preprocess", "train"} <= set(again["reused"])
    assert not {"evaluate", "register"} & set(again["reused"])
    assert again["digests"]["checkpoint"] == outcome["digests"]["checkpoint"]
    assert again["model"]["version"] == "1"
    version = registry_of(workshop).with_alias("tiny", "champion")
    assert version is not None
    assert version.tags["darkroom.evaluation"] == again["digests"]["evaluation"]


def test_a_model_is_tested_on_another_data_set(finished) -> None:
    workshop, outcome = finished
    lines = (workshop.photos / "metadata.jsonl").read_text().splitlines()[:40]
    other = workshop.folder / "other"
    other.mkdir()
    (other / "metadata.jsonl").write_text("\n".join(lines))
    for line in lines:
        name = json.loads(line)["file_name"]
        shutil.copy(workshop.photos / name, other / name)
    where = ("--set", "evaluate.also.other.source=folder", "--set", "evaluate.also.other.path=other")
    again = workshop.run(*where)
    assert {"collect", "check", "preprocess", "train"} <= set(again["reused"])
    metrics = again["metrics"]
    assert metrics["other/fd_clip_digits"] != metrics["fd_clip_digits"]
    assert metrics["other/denoising_mse"] != metrics["denoising_mse"]
    assert not [name for name in metrics if name.startswith(("other/nearest", "other/memorised"))]
    assert {name: value for name, value in metrics.items() if "/" not in name} == outcome["metrics"]
    refused = workshop.command("run", "tiny.toml", *where, "--set", "evaluate.also.other.sorce=x")
    assert refused.returncode == 2
    assert "evaluate.also.other.sorce" in refused.stderr


def test_one_edited_caption_rewrites_one_shard(finished, tmp_path: Path) -> None:
    workshop, outcome = finished
    changed = workshop.copy(tmp_path / "changed")
    shutil.copytree(workshop.home / "store", changed.home / "store")
    lines = [json.loads(line) for line in (changed.photos / "metadata.jsonl").read_text().splitlines()]
    lines[5]["text"] = "the digit five, once more"
    (changed.photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    again = changed.run("--set", "train.steps=2")
    assert not {"collect", "check", "preprocess", "train"} & set(again["reused"])

    def contents(digest: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (changed.home / "store/shards" / digest / "shards").iterdir()}

    before, after = contents(outcome["digests"]["shards"]), contents(again["digests"]["shards"])
    assert before.keys() == after.keys()
    different = [name for name in before if before[name] != after[name]]
    assert len(different) == 1
    assert different[0].endswith(".json")
    tensors = different[0].replace(".json", ".safetensors")
    assert before[tensors] == after[tensors]


def test_a_worse_challenger_does_not_replace_the_champion(finished) -> None:
    workshop, _ = finished
    worse = workshop.run("--set", "train.steps=1", "--set", "train.learning_rate=1e-6")
    assert worse["decision"] in ("kept_champion", "challenger")
    assert worse["verdict"]["decision"] in ("FAIL", "INCONCLUSIVE")
    primary = worse["verdict"]["rules"][0]
    assert primary["measure"] == "fd_clip_digits"
    assert primary["low"] < primary["gain"] < primary["high"] < primary["wanted"]
    page = Path(worse["paths"]["report"]).read_text("utf-8")
    assert "Against the champion" in page
    assert primary["words"] in html.unescape(page)
    assert "wrong promotions were to be expected over its history" in page
    assert "How steady is it?" in page, "there are two versions"
    champion = registry_of(workshop).with_alias("tiny", "champion")
    assert champion is not None
    assert champion.version == "1"
    assert registry_of(workshop).version_of("tiny", worse["digests"]["checkpoint"]) is not None
    assert workshop.run("--set", "train.steps=1", "--set", "train.learning_rate=1e-6")["decision"] == "unchanged"


def test_generated_pictures_depend_on_seed_and_index_alone(finished, tmp_path: Path) -> None:
    workshop, _ = finished
    few, many = tmp_path / "few", tmp_path / "many"
    for out, count, seed in ((few, 3, 1), (many, 18, 1)):
        done = workshop.command(
            "generate",
            "tiny@champion",
            "a handwritten seven",
            "--count",
            str(count),
            "--seed",
            str(seed),
            "--out",
            str(out),
        )
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in few.iterdir()) == ["0000.png", "0001.png", "0002.png", "grid.png"]
    for index in range(3):
        name = f"{index:04d}.png"
        assert (few / name).read_bytes() == (many / name).read_bytes()
    again = workshop.command("generate", "tiny@champion", "seven", "--out", str(few))
    assert again.returncode == 2
    assert "there is something already" in again.stderr


def test_the_pipeline_needs_nothing_of_darkroom(finished) -> None:
    from diffusers import DiffusionPipeline

    _, outcome = finished
    pipeline = DiffusionPipeline.from_pretrained(outcome["paths"]["pipeline"])
    pipeline.set_progress_bar_config(disable=True)
    for prompt in ("a handwritten seven", "手寫數字七", "zebra 🦓 unknown", ""):
        picture = pipeline(prompt, num_inference_steps=2, guidance_scale=1.0).images[0]
        assert isinstance(picture, Image.Image)
        assert np.asarray(picture).shape == (16, 16, 3)
    assert (Path(outcome["paths"]["pipeline"]) / "README.md").read_text().startswith("---\nlibrary_name: diffusers")
    assert not list(Path(outcome["paths"]["pipeline"]).rglob("*.bin"))


def test_served_pictures_are_those_that_were_judged(finished) -> None:
    import base64
    import io

    import pandas as pd

    workshop, outcome = finished
    registry = registry_of(workshop)
    version = registry.resolve("tiny/1")
    prompts = json.loads((Path(outcome["paths"]["samples"]).parent / "prompts.json").read_text())
    served = registry.load(version).predict(pd.DataFrame({"prompt": prompts[:5]}), params={"seed": 0})
    other = registry.load(version).predict(pd.DataFrame({"prompt": prompts[:5]}), params={"seed": 1})
    assert not set(served["image"]) & set(other["image"])
    evaluation = Path(outcome["paths"]["samples"]).parent
    digest = json.loads((evaluation / "artifact.json").read_text())["facts"]["samples"]
    samples = evaluation.parents[1] / "samples" / digest / "pictures"
    for index, text in enumerate(served["image"]):
        judged = Image.open(samples / f"{index:05d}.png")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))), np.asarray(judged))


@pytest.mark.slow
def test_a_better_challenger_becomes_champion(finished) -> None:
    workshop, _ = finished
    better = workshop.run("--set", "train.steps=900", "--set", "train.batch=64", "--set", "train.learning_rate=2e-3")
    assert (better["verdict"]["decision"], better["decision"]) == ("PASS", "promoted")
    champion = registry_of(workshop).with_alias("tiny", "champion")
    assert champion is not None
    assert champion.version == better["model"]["version"] != "1"
