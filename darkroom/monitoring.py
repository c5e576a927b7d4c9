"""Is the champion still what it was when it became champion, and does the data still look like what it was trained on?

Four questions, each with a limit in the recipe's ``[monitor]``:

- Are the model's files, and the pictures that it draws from fixed seeds and prompts, the same bytes as the first time?
  A file that changed, or pictures that did on the same machine and libraries, mean that something broke. Elsewhere last
  bits differ, and the mean difference of the pixels is held against a tolerance.
- Is it still as good on the newest accepted data as it was at registration?
- Have the pictures that are new since its training drifted from those before?
- How many are new, and how old is it?

The first two make a champion that has *drifted*; any of them makes *retraining due*. Each time is a point of curves in
MLflow, on one run a model, so that weeks are seen side by side.
"""

import base64
import io
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import history
from .artifacts import CheckedManifest, Evaluation, QualityReport
from .errors import RecipeError
from .evaluation.evaluate import metrics_of
from .evaluation.verdict import broken_limits, names
from .provenance import environment, processor, read
from .quality import drift
from .recipe import Recipe
from .registry import Registry, Version
from .store import Store, digest_of, file_digest, write_json

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

LOWER_IS_BETTER = ("fd_", "fid")  # the other measures of the gate are better the higher they are
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
SEED = 0
DAY = 86_400.0


@dataclass(frozen=True)
class Watched:
    """A measure on the newest data beside the same at registration."""

    measure: str
    now: float
    then: float
    worse: float
    """How much worse it is, as a share of what it was; below 0 it is better."""
    beyond: bool


@dataclass(frozen=True)
class Same:
    """Whether the champion still draws what it drew the first time."""

    state: str
    """first: nothing to compare with yet; bytes; tolerance: other bits within it; different."""
    difference: float
    """The largest mean difference of a picture's pixels, in levels of 255."""
    words: str
    pictures: tuple[str, ...] = field(default=(), repr=False)
    """PNG in base64."""


@dataclass(frozen=True)
class Monitored:
    """What one look at the champion found; ``drifted`` and ``due`` are the reasons, in words."""

    model: str
    version: str
    when: str
    data: str
    """What it was measured on."""
    same: str
    difference: float
    watched: tuple[Watched, ...]
    measures: dict[str, float]
    drift: str
    drift_words: tuple[str, ...]
    rows: int
    new_rows: int | None
    """None where the store no longer has the data that it was trained on."""
    age_days: float
    drifted: tuple[str, ...]
    due: tuple[str, ...]

    @property
    def decision(self) -> str:
        """The whole in one word."""
        return "drifted" if self.drifted else "retraining_due" if self.due else "healthy"

    @property
    def reason(self) -> str:
        """Why, in words."""
        reasons = list(dict.fromkeys((*self.drifted, *self.due)))
        return "; ".join(reasons) or "it draws what it drew, as well as it did, and the data are as they were"


# Files and pictures


def changed_files(registry: Registry, version: Version) -> str | None:
    """The first weights of a version that have not the bytes of registration; None where all have."""
    record = read(registry, version).provenance or {}
    folder = registry.pipeline_folder(version)
    for name, sha256 in sorted((record.get("files") or {}).items()):
        path = folder / name.removeprefix("pipeline/")
        if name.startswith("pipeline/") and name.endswith(".safetensors"):
            if not path.is_file():
                return f"{name} is gone from MLflow's artifacts"
            if file_digest(path) != sha256:
                return f"{name} has not the bytes that it was registered with"
    return None


def surroundings(device: str) -> dict[str, str]:
    """What last bits depend on besides the model: device, processor, libraries."""
    packages = environment()["packages"]
    return {"device": device, "processor": processor(), **{name: packages.get(name, "") for name in LIBRARIES}}


def draw_again(registry: Registry, version: Version, prompts: list[str], tolerance: float, device: str) -> Same:
    """Draw the fixed pictures, as MLflow serves the version, and compare them with those of before.

    The first time they are kept, with their ``prompts``; later the prompts of the first time are drawn.
    """
    kept = _kept(registry, version)
    asked = kept["prompts"] if kept else prompts
    drawn = _drawn(registry.load(version), asked)
    here = surroundings(device)
    place = digest_of(here)[:12]
    known = kept["places"] if kept else {}
    if place in known:
        difference = max(map(_difference, drawn, known[place]["pictures"]), default=0.0)
        if drawn == known[place]["pictures"]:
            return Same("bytes", 0.0, "the same bytes as the first time", tuple(drawn))
        words = f"on the same machine and libraries its pictures differ by up to {difference:.3g} levels of 255"
        return Same("different", difference, words, tuple(drawn))
    _keep(registry, version, {"prompts": asked, "places": {**known, place: {"where": here, "pictures": drawn}}})
    if not known:
        return Same("first", 0.0, "kept for the next time: there was nothing to compare with yet", tuple(drawn))
    first = next(iter(known.values()))
    difference = max(map(_difference, drawn, first["pictures"]), default=0.0)
    others = [f"{name} {here[name]} instead of {was}" for name, was in first["where"].items() if here.get(name) != was]
    words = f"its pictures differ by up to {difference:.3g} levels of 255 with {', '.join(others)}"
    return Same("tolerance" if difference <= tolerance else "different", difference, words, tuple(drawn))


def _drawn(model: Any, prompts: list[str]) -> list[str]:
    import pandas as pd

    if hasattr(model.unwrap_python_model(), "vae"):
        raise RecipeError("an autoencoder draws no pictures of its own: monitor a model that was trained with it")
    answer = model.predict(pd.DataFrame({"prompt": prompts}), params={"seed": SEED, "steps": 0, "guidance": -1.0})
    return [str(text) for text in answer["image"]]


def _difference(one: str, other: str) -> float:
    """The mean absolute difference of two pictures' pixels, in levels of 255; 255 where their sizes differ."""
    import numpy as np

    a, b = (np.asarray(opened(text), dtype=np.float64) for text in (one, other))
    return float(np.abs(a - b).mean()) if a.shape == b.shape else 255.0


def opened(text: str) -> "Image":
    """A PNG in base64 as a picture."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as file:
        return file.convert("RGB")


# MLflow


def run_of(registry: Registry, model: str) -> str:
    """The MLflow run that has the curves of all monitoring of a model."""
    return registry.open_run(f"monitor {model}", f"monitor {model}", {}, {"darkroom.monitor": model})


def _kept(registry: Registry, version: Version) -> dict[str, Any] | None:
    content = registry.artifact(run_of(registry, version.model), _baseline(version))
    return json.loads(content) if content else None


def _keep(registry: Registry, version: Version, content: Mapping[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        write_json(Path(folder) / "baseline.json", content)
        artifacts = {_baseline(version): Path(folder) / "baseline.json"}
        registry.log_results(run_of(registry, version.model), None, {}, artifacts)


def _baseline(version: Version) -> str:
    return f"baseline/{version.version}-{version.checkpoint[:12]}.json"


def log(registry: Registry, found: Monitored, grid: Path) -> str:
    """A point of the curves in MLflow, with the whole and the pictures beside it; returns the run's id."""
    import tempfile

    run_id = run_of(registry, found.model)
    points = {f"monitor/{name}": value for name, value in found.measures.items()}
    points |= {f"monitor/worse/{one.measure}": one.worse for one in found.watched}
    points |= {
        "monitor/champion": float(found.version),
        "monitor/picture_difference": found.difference,
        "monitor/drift": float(drift.LEVELS.index(found.drift)) if found.drift in drift.LEVELS else -1.0,
        "monitor/rows": float(found.rows),
        "monitor/age_days": found.age_days,
        "monitor/due": float(bool(found.due)),
    }
    if found.new_rows is not None:
        points["monitor/new_rows"] = float(found.new_rows)
    registry.append(run_id, points)
    stamp = found.when.replace(":", "").replace("+0000", "Z")
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        write_json(Path(folder) / "found.json", asdict(found))
        artifacts = {f"monitoring/{stamp}.json": Path(folder) / "found.json", f"monitoring/{stamp}.png": grid}
        registry.log_results(run_id, None, {}, artifacts)
    registry.close_run(run_id)
    return run_id


# The judgement


def judge(
    registry: Registry,
    version: Version,
    plan: Recipe,
    checked: CheckedManifest,
    evaluation: Evaluation,
    same: Same,
    data: str,
    store: Store,
) -> Monitored:
    """Hold everything that was found against the recipe's limits."""
    measures = metrics_of(evaluation)
    watched = watch(measures, history.measures_of(registry, version), plan)
    drifted = [broken] if (broken := changed_files(registry, version)) else []
    if same.state == "different":
        drifted.append(same.words)
    drifted += [
        f"{one.measure} is {one.now:.4g} on the newest data and was {one.then:.4g} at registration: {one.worse:.0%} "
        f"worse, and monitor.worse is {plan.monitor.worse:.0%}"
        for one in watched
        if one.beyond
    ]
    here = {name: limit for name, limit in plan.gate.limits.items() if "/" not in name}  # not those on other data sets
    drifted += broken_limits(measures, plan.gate.model_copy(update={"limits": here}))
    moved, rows, new = _of_data(version, checked, plan, store)
    age = max(0.0, (time.time() - version.created / 1000) / DAY)
    due = [*drifted, *_due(plan, moved, new, rows[1], age)]
    return Monitored(
        model=version.model,
        version=version.version,
        when=history.now(),
        data=data,
        same=f"{same.state}: {same.words}",
        difference=same.difference,
        watched=tuple(watched),
        measures=measures,
        drift=moved.level if moved else "unknown",
        drift_words=tuple(one.sentence for one in moved.measures if one.level != "none") if moved else (),
        rows=rows[0],
        new_rows=new,
        age_days=round(age, 3),
        drifted=tuple(drifted),
        due=tuple(due),
    )


def watch(now: Mapping[str, float], then: Mapping[str, float], plan: Recipe) -> list[Watched]:
    """The gate's measures today beside what they were, as far as both are known.

    A distance is taken over that of real pictures of the same data, so that other data and another count cancel out.
    A kernel distance is about 0 where all is well, so no share of it says anything: the Fréchet distance stands for it.
    """
    called = names(plan.evaluate)
    found = []
    main = plan.gate.measure if plan.gate.measure not in (None, "kernel") else "frechet"
    for name in dict.fromkeys((main, *plan.gate.guards)):
        measure = called[name]
        lower = measure.startswith(LOWER_IS_BETTER)
        if lower and f"{measure}_ratio" in now and f"{measure}_ratio" in then:
            measure = f"{measure}_ratio"
        if measure not in now or not then.get(measure):
            continue
        change = (now[measure] - then[measure]) / abs(then[measure])
        worse = (change if lower else -change) + 0.0  # no -0.0
        found.append(Watched(measure, now[measure], then[measure], worse, worse > plan.monitor.worse))
    return found


def _of_data(
    version: Version, checked: CheckedManifest, plan: Recipe, store: Store
) -> tuple[drift.Drift | None, tuple[int, int], int | None]:
    """(drift of what is new since the champion was trained, (rows now, rows then), how many are new)."""
    now = _accepted(checked)
    trained = store.find(QualityReport, version.tags.get("darkroom.checked", ""))
    if trained is None:
        return None, (len(now), 0), None
    then = _accepted(trained)
    new = drift.fresh(now, then)
    return drift.compare(new, then, plan.split.seed), (len(now), len(then)), len(new)


def _accepted(report: QualityReport) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow.parquet as parquet

    path = report.path / "checked.parquet"
    there = set(parquet.read_schema(path).names)
    return pd.read_parquet(path, columns=[name for name in drift.COLUMNS if name in there])


def _due(plan: Recipe, moved: drift.Drift | None, new: int | None, before: int, age: float) -> list[str]:
    """Why it is time to train again, as far as data and age say so."""
    limits, found = plan.monitor, []
    if new is not None and limits.new_rows is not None and before and new / before >= limits.new_rows:
        found.append(
            f"{new:,} accepted pictures are new since it was trained on {before:,}: {new / before:.0%}, and "
            f"monitor.new_rows is {limits.new_rows:.0%}"
        )
    if moved and limits.drift and drift.LEVELS.index(moved.level) >= drift.LEVELS.index(limits.drift):
        worst = [one.sentence for one in moved.measures if one.level == moved.level]
        found.append(f"the new pictures have drifted: {' '.join(worst[:3])}")
    if limits.max_age_days is not None and age >= limits.max_age_days:
        found.append(f"it is {age:.0f} days old, and monitor.max_age_days is {limits.max_age_days:g}")
    return found
