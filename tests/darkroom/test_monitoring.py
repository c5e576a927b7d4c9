"""What the monitor compares: pictures by their bytes, measures by shares, and what makes retraining due."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from darkroom import monitoring
from darkroom.artifacts import CheckedManifest, Evaluation
from darkroom.monitoring import Monitored, Same, draw_again, judge, log, run_of, watch
from darkroom.recipe import Recipe, parse
from darkroom.registry import Registry, Version
from darkroom.store import Store

TABLE: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "collect": {"source": "digits"},
    "model": {"vae": "a", "text_encoder": "b"},
    "train": {"steps": 1},
    "evaluate": {"features": "builtin:clip-digits", "clip": "builtin:clip-digits"},
}
FD, COVERAGE, SCORE = "fd_clip_digits_ratio", "coverage_clip_digits", "clip_score_digits"


def plan(**monitor: Any) -> Recipe:
    return parse({**TABLE, "monitor": monitor}, "x")


def png(level: int, size: int = 8) -> str:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Painted(Registry):
    """A registry on SQLite whose model draws what it is told to; ``asked`` is what it was asked for last."""

    level, size = 100, 8
    asked: tuple[str, ...] = ()

    def load(self, version: Version) -> Any:
        registry = self

        class Model:
            def unwrap_python_model(self) -> object:
                return object()

            def predict(self, table: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
                registry.asked = tuple(table["prompt"])
                return pd.DataFrame(
                    {"image": [png(registry.level + place, registry.size) for place in range(len(table))]}
                )

        return Model()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def registry(home: Path) -> Painted:
    return Painted(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", "tiny")


@pytest.fixture
def version(registry: Painted, request: pytest.FixtureRequest, tmp_path: Path) -> Version:
    name = str(request.node.name).replace("_", "-").replace("[", "-").replace("]", "")
    folder = tmp_path / "pipeline"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "model.safetensors").write_bytes(b"weights")
    run_id = registry.open_run(name, name, {})
    return registry.register(
        name, run_id, folder, checkpoint="c" * 64, metrics={FD: 1.0, COVERAGE: 0.8}, tags={"darkroom.checked": "t" * 64}
    )


def test_the_same_place_wants_the_same_bytes(registry: Painted, version: Version) -> None:
    first = draw_again(registry, version, ["a", "b"], 2.0, "cpu")
    assert (first.state, len(first.pictures)) == ("first", 2)
    again = draw_again(registry, version, ["others"], 2.0, "cpu")
    assert (again.state, again.difference) == ("bytes", 0.0)
    assert registry.asked == ("a", "b"), "the prompts of the first time"
    registry.level += 1
    changed = draw_again(registry, version, [], 2.0, "cpu")
    assert (changed.state, changed.difference) == ("different", 1.0)


@pytest.mark.parametrize(("by", "state"), [(2, "tolerance"), (3, "different")])
def test_another_place_is_held_against_the_tolerance(registry: Painted, version: Version, by: int, state: str) -> None:
    draw_again(registry, version, ["a"], 2.0, "cpu")
    registry.level += by
    there = draw_again(registry, version, [], 2.0, "cuda")
    assert (there.state, there.difference) == (state, float(by))
    assert "device cuda instead of cpu" in there.words
    assert draw_again(registry, version, [], 2.0, "cuda").state == "bytes", "of that place's own first time"
    registry.level -= by
    assert draw_again(registry, version, [], 2.0, "cpu").state == "bytes"


def test_pictures_of_another_size_differ(registry: Painted, version: Version) -> None:
    draw_again(registry, version, ["a"], 2.0, "cpu")
    registry.size = 16
    assert draw_again(registry, version, [], 2.0, "cpu").difference == 255.0


def test_measures_worsen_in_their_own_direction() -> None:
    then = {FD: 1.0, COVERAGE: 0.8, SCORE: 20.0}
    (distance, coverage, score) = watch({FD: 1.3, COVERAGE: 0.4, SCORE: 22.0}, then, plan(worse=0.4))
    assert (distance.measure, pytest.approx(0.3), False) == (distance.measure, distance.worse, distance.beyond)
    assert (coverage.worse, coverage.beyond) == (pytest.approx(0.5), True)
    assert (score.worse, score.beyond) == (pytest.approx(-0.1), False)
    assert [one.measure for one in watch({FD: 1.0}, then, plan())] == [FD], "only what is known of both"
    assert watch({FD: 1.0}, {}, plan()) == []


def report_of(store: Store, digest: str, numbers: range, sharpness: float = 1.0) -> CheckedManifest:
    """Accepted rows in the store."""
    random = np.random.default_rng(numbers.start)
    table = pd.DataFrame({"id": [f"{number:064d}" for number in numbers]})
    table["sharpness"] = random.normal(sharpness, 0.1, len(table))

    def build(work: Path) -> None:
        table.to_parquet(work / "checked.parquet")

    return store.get_or_build(CheckedManifest, digest * 64, build, inputs={})


@pytest.fixture
def look(registry: Painted, version: Version, store: Store) -> Callable[..., Monitored]:
    """``look(checked, measures, same, **monitor)``: the judgement on a champion that was trained on 100 pictures."""
    report_of(store, "t", range(100))

    def judged(checked: CheckedManifest, measures: dict[str, float], same: str = "bytes", **monitor: Any) -> Monitored:
        def build(work: Path) -> None:
            (work / "metrics.json").write_text(json.dumps(measures))

        evaluation = store.get_or_build(Evaluation, "e" * 64, build, inputs={}, fresh=True)
        drawn = Same(same, 5.0, "they differ", (png(1),))
        return judge(registry, version, plan(**monitor), checked, evaluation, drawn, "today's data", store)

    return judged


WELL = {FD: 1.0, COVERAGE: 0.8}


def test_a_champion_on_the_data_that_it_was_trained_on_is_healthy(look, store: Store) -> None:
    found = look(report_of(store, "t", range(100)), WELL)
    assert (found.decision, found.new_rows, found.drift, found.due) == ("healthy", 0, "none", ())


def test_new_pictures_make_retraining_due(look, store: Store) -> None:
    few = look(report_of(store, "f", range(109)), WELL)
    assert (few.decision, few.new_rows) == ("healthy", 9)
    many = look(report_of(store, "m", range(110)), WELL)
    assert many.decision == "retraining_due"
    assert "10 accepted pictures are new since it was trained on 100: 10%" in many.reason
    assert look(report_of(store, "m", range(110)), WELL, new_rows=0.2).decision == "healthy"


def test_drift_of_what_is_new_makes_retraining_due(look, store: Store) -> None:
    found = look(report_of(store, "d", range(130), 1.0), WELL, new_rows=None)
    assert found.decision == "healthy"
    other = pd.concat(
        [
            pd.read_parquet(report_of(store, "t", range(100)).path / "checked.parquet"),
            pd.read_parquet(report_of(store, "o", range(500, 540), 3.0).path / "checked.parquet"),
        ]
    )
    mixed = store.get_or_build(
        CheckedManifest, "x" * 64, lambda work: other.to_parquet(work / "checked.parquet"), inputs={}
    )
    drifted = look(mixed, WELL, new_rows=None)
    assert (drifted.decision, drifted.drift) == ("retraining_due", "much")
    assert "sharpness" in drifted.reason
    assert look(mixed, WELL, new_rows=None, drift=None).decision == "healthy"


def test_worse_measures_or_other_pictures_are_a_drifted_champion(look, store: Store) -> None:
    checked = report_of(store, "t", range(100))
    worse = look(checked, {FD: 1.5, COVERAGE: 0.8})
    assert worse.decision == "drifted"
    assert f"{FD} is 1.5 on the newest data and was 1 at registration: 50% worse" in worse.reason
    assert worse.due == worse.drifted
    assert look(checked, {FD: 1.5, COVERAGE: 0.8}, worse=0.6).decision == "healthy"
    assert look(checked, WELL, same="different").drifted == ("they differ",)
    assert look(checked, WELL, same="tolerance").decision == "healthy"


def test_age_alone_is_a_reason_only_where_the_recipe_says_so(look, version: Version, store: Store) -> None:
    checked = report_of(store, "t", range(100))
    assert look(checked, WELL, max_age_days=1e-9).decision == "retraining_due"


def test_data_that_the_store_no_longer_has_are_no_reason(
    registry: Painted, version: Version, store: Store, look: Any
) -> None:
    bare = replace(version, tags={})
    assert monitoring._of_data(bare, report_of(store, "n", range(300)), plan(), store)[2] is None


def test_weights_are_held_against_the_bytes_of_registration(
    registry: Painted, version: Version, tmp_path: Path
) -> None:
    from darkroom.store import file_digest, write_json

    name = "pipeline/unet/model.safetensors"
    weights = registry.pipeline_folder(version) / "unet" / "model.safetensors"
    record = tmp_path / "provenance.json"
    write_json(record, {"files": {name: file_digest(weights), "pipeline/README.md": "other"}})
    registry.log_results(version.run_id, None, {}, {"provenance.json": record})
    assert monitoring.changed_files(registry, version) is None
    weights.write_bytes(b"Weights")
    assert "has not the bytes" in (monitoring.changed_files(registry, version) or "")
    weights.unlink()
    assert "is gone" in (monitoring.changed_files(registry, version) or "")


def test_each_look_is_a_point_of_the_same_curves(registry: Painted, look: Any, store: Store, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "grid.png")
    found = look(report_of(store, "t", range(100)), WELL)
    for _ in range(2):
        log(registry, found, tmp_path / "grid.png")
    run_id = run_of(registry, found.model)
    for name in ("monitor/champion", f"monitor/{FD}", f"monitor/worse/{COVERAGE}", "monitor/new_rows"):
        assert [point.step for point in registry._client.get_metric_history(run_id, name)] == [0, 1]
    files = [file.path for file in registry._client.list_artifacts(run_id, "monitoring")]
    assert {Path(path).suffix for path in files} == {".json", ".png"}
