"""Validations that draw, and trainings that go by what they draw."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from darkroom.artifacts import Shards
from darkroom.diffusion.sampling import draw
from darkroom.errors import RecipeError
from darkroom.evaluation.evaluate import real_pictures
from darkroom.evaluation.features import folder_features, load
from darkroom.evaluation.frechet import frechet
from darkroom.evaluation.samples import save_pictures
from darkroom.recipe import Model, Overrides, Recipe, Train
from darkroom.recipe import load as load_recipe
from darkroom.training import drawn, supervise
from darkroom.training.best import Best
from darkroom.training.compute import precise
from darkroom.training.events import FILE, read
from darkroom.training.job import Job
from darkroom.training.loop import DONE, train
from darkroom.training.methods import method
from darkroom.weights.locate import locate

CPU = torch.device("cpu")
EXTRACTOR = "builtin:clip-digits"
DISTANCE = {"features": EXTRACTOR, "layer": "pooled", "count": 16}
MakeJob = Callable[..., Job]


@pytest.fixture
def drawing(job: MakeJob) -> MakeJob:
    """A small training whose validations draw."""

    def make(**fields: Any) -> Job:
        made = job(**{"distance": DISTANCE, **fields})
        return replace(made, parts=made.parts | {"features": locate(EXTRACTOR).path})

    return make


def test_the_same_model_is_as_far_every_time(drawing: MakeJob) -> None:
    task: Any = method(drawing(), CPU)
    first, second = task.validate(), task.validate()
    assert first == second
    assert list(first) == ["validation/kd_clip_digits", "validation/loss"]  # of few pictures: by pairs
    with torch.no_grad():
        for value in task.players[0].parameters.values():
            value.zero_()
    assert task.validate()["validation/kd_clip_digits"] != first["validation/kd_clip_digits"]


def test_pictures_are_seen_in_full_precision_whatever_is_trained_in(drawing: MakeJob) -> None:
    seen = []
    for precision in ("fp32", "bf16"):
        task: Any = method(drawing(precision=precision), CPU)
        with precise(task.job.train, CPU):
            task.rehearse()
            seen.append(task.drawn._real)
    assert np.array_equal(*seen)


def test_enough_pictures_are_compared_by_their_normals(
    drawing: MakeJob, shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []

    def drawn_and_kept(*arguments: Any) -> list[Any]:
        kept[:] = draw(*arguments)
        return kept

    monkeypatch.setattr(drawn, "ENOUGH", 0.1)
    monkeypatch.setattr(drawn, "draw", drawn_and_kept)
    found = method(drawing(), CPU).validate()
    assert next(iter(found)) == "validation/fd_clip_digits"
    held_out, _ = real_pictures(shards, "validation")
    sets = {"drawn": kept, "held-out": list(held_out.permute(0, 2, 3, 1).numpy())}
    for name, pictures in sets.items():
        save_pictures(pictures, tmp_path / name)
    extractor = load(EXTRACTOR, "cpu", "pooled")
    expected = frechet(*(folder_features(tmp_path / name, extractor) for name in sets))
    assert (len(kept), found["validation/fd_clip_digits"]) == (16, pytest.approx(expected))


def test_the_best_weights_are_those_of_the_smallest_distance(
    drawing: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances = [3.0, -1.0, 2.0, 0.0]  # after steps 2, 4, 6 and 8
    told = iter(distances)
    monkeypatch.setattr(drawn.Drawn, "distance", lambda *_: next(told))
    train(drawing(keep="best", steps=8), tmp_path)
    events = [event["metrics"] for event in read(tmp_path / FILE) if "validation/loss" in event.get("metrics", {})]
    losses = [metrics["validation/loss"] for metrics in events]
    assert losses.index(min(losses)) != 1, "by the loss it would be the same"
    assert [metrics["validation/kd_clip_digits"] for metrics in events] == distances
    assert json.loads((tmp_path / DONE).read_text())["kept"] == 4


@pytest.mark.parametrize("way", ["full", "lora", "textual-inversion"])
def test_what_is_taught_draws_as_well(drawing: MakeJob, job: MakeJob, folder: Callable[[str], Path], way: str) -> None:
    base, work = folder("base"), folder("work")
    train(job(steps=1), base)
    taught = drawing(method=way, steps=2)
    parts = {"base": base / "pipeline", "features": taught.parts["features"]}
    train(replace(taught, model=Model(base="base"), parts=parts), work)
    metrics = [event["metrics"] for event in read(work / FILE) if "validation/loss" in event.get("metrics", {})]
    assert [next(iter(each)) for each in metrics] == ["validation/kd_clip_digits"]


def test_an_extractor_that_is_none_is_named(drawing: MakeJob, tmp_path: Path, shards: Shards) -> None:
    (tmp_path / "empty").mkdir()
    made = drawing()
    with pytest.raises(RecipeError, match=r"train\.distance\.features = 'builtin:clip-digits': .* no config\.json"):
        train(replace(made, parts=made.parts | {"features": tmp_path / "empty"}), tmp_path)
    with pytest.raises(RecipeError, match=r"train\.distance\.features = 'builtin:none': builtin:none is not shipped"):
        digest(shards, **{"train.distance.features": "builtin:none"})


@pytest.mark.parametrize(
    ("losses", "since"),
    [((1.0, 0.95), 1), ((1.0, 0.85), 0), ((-1.0, -1.05), 1), ((-1.0, -0.95), 1), ((-1.0, -1.15), 0), ((0.0, -0.1), 0)],
)
def test_a_distance_below_zero_has_to_fall_further(losses: tuple[float, float], since: int) -> None:
    best = Best(Train(steps=1000, early_stop={"patience": 3, "least_gain": 0.1}))
    for step, loss in enumerate(losses):
        best.take(step, loss, dict)
    assert best.since == since
    assert best.loss == min(losses)


def digest(shards: Shards, **fields: Any) -> str:
    plan = load_recipe("digits", Overrides(fields=fields))
    return supervise.checkpoint_digest(shards, plan)


def test_a_distance_counts_where_training_goes_by_it(shards: Shards) -> None:
    told = {"train.distance.features": EXTRACTOR, "train.distance.layer": "pooled"}
    plain, best = digest(shards), digest(shards, **{"train.keep": "best"})
    assert digest(shards, **told) == plain
    judged = digest(shards, **told, **{"train.keep": "best"})
    assert len({plain, best, judged}) == 3
    assert digest(shards, **told, **{"train.keep": "best", "evaluate.sampler.steps": 3}) != judged
    assert digest(shards, **{"train.keep": "best", "evaluate.sampler.steps": 3}) == best


@pytest.mark.parametrize(
    ("family", "train", "words"),
    [
        ("autoencoder", {"method": "autoencoder", "adversary": {"layers": 1}}, "train: distance belongs to denoisers"),
        ("stable-diffusion", {"method": "distill"}, r"train\.distance does nothing with train\.method = 'distill'"),
    ],
)
def test_what_has_other_measures_has_no_distance(family: str, train: dict[str, Any], words: str) -> None:
    table = {"version": 1, "name": "v", "collect": {"source": "digits"}, "preprocess": {"size": 16}}
    table |= {"model": {"family": family, "base": "champion"}, "train": {"steps": 1, "distance": DISTANCE, **train}}
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate(table)
