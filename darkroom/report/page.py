"""The page of a run: one file that opens offline, in light and dark, on a phone."""

import base64
import hashlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darkroom._registry import cut, flatten, plain
from darkroom.artifacts import CheckedManifest, Checkpoint, Evaluation, Shards, Verdict
from darkroom.evaluation.contrasts import MEASURES
from darkroom.evaluation.evaluate import metrics_of
from darkroom.evaluation.gate import Rule
from darkroom.evaluation.verdict import read as read_verdict
from darkroom.history import Past
from darkroom.preprocess.shards import read_index
from darkroom.provenance import portable
from darkroom.quality.check import summary
from darkroom.recipe import Gate, Recipe
from darkroom.registry import PARAM_LENGTH
from darkroom.stability import Trained, trained
from darkroom.stability import rows as steady_rows
from darkroom.training.events import FILE, read

from .charts import DISTANCE, interval, looks, loss_curve

SHOWN = 16  # grids of the training that the slider goes through
WIDEST = 900  # pixels
SCRIPT = """
const pictures = [...document.querySelectorAll("#through img")];
const slider = document.getElementById("step"), shown = document.getElementById("shown");
slider.addEventListener("input", () => {
  pictures.forEach((one, place) => { one.hidden = place != slider.value; });
  const words = pictures[slider.value].alt.match(/[0-9,]+/)[0];
  shown.textContent = words;
  slider.setAttribute("aria-valuetext", words + " steps");
});
"""

# What a measure says, by the end or the start of its name.
MEANINGS = (
    (
        "_ratio",
        "generated against held-out pictures, over the same for real training pictures; about 1 is as good as it gets",
        "fd_",
    ),
    ("_train", "the same distance for real training pictures, for comparison", "fd_"),
    ("_spread", "how much the distance varies from one set of noise to another (standard deviation)", "fd_"),
    ("_spread", "how much the distance varies from one set of noise to another (standard deviation)", "fid"),
    ("_spread_sets", "of how many sets of noise that is", "fd_"),
    ("_spread_sets", "of how many sets of noise that is", "fid"),
    ("blank_share", "share of pictures that are one flat colour; a broken model draws nothing else", ""),
    ("unsafe_share", "share of pictures that the safety classifier takes for unwanted", ""),
    ("blank_share_validation", "the same for held-out pictures", ""),
    ("", "Fréchet distance of generated, or of rebuilt, to held-out pictures; lower is better", "fd_"),
    ("", "Fréchet Inception distance of generated, or of rebuilt, to held-out pictures; lower is better", "fid"),
    ("", "how well each picture fits its prompt, 100 × cosine; higher is better", "clip_score"),
    (
        "nearest_ratio",
        "distance to the nearest training picture against that of held-out ones; far below 1 means copying",
        "",
    ),
    ("memorised_share", "generated pictures nearer to a training picture than 99 % of the held-out ones are", ""),
    ("memorised_p", "chance of so many by coincidence; near 0 means that some are copies", ""),
    ("", "kernel distance of generated to held-out pictures; 0 is ideal, a little below is chance", "kd_"),
    ("", "kernel distance on Inception's features (KID); 0 is ideal, a little below is chance", "kid"),
    ("", "share of generated pictures that look like real ones", "precision_"),
    ("", "share of real pictures whose like is drawn", "recall_"),
    ("", "how densely real pictures lie around generated ones; about 1 is right", "density_"),
    ("", "share of real pictures with a generated one among their neighbours", "coverage_"),
    ("_ratio", "variety within one prompt, against that of held-out pictures; below 1 is less varied", "diversity_"),
    ("nearest_train", "median distance of generated pictures to the nearest training picture", ""),
    ("nearest_train_validation", "the same for held-out pictures", ""),
    ("_mse", "mean squared error of the predicted velocity", "denoising"),
    ("_rmse", "its root", "denoising"),
    ("_mae", "mean absolute error of the predicted velocity", "denoising"),
    ("_r2", "share of the velocity's variance that is predicted; 1 is ideal", "denoising"),
    ("_mse", "mean squared error of rebuilt pixels, from 0 (black) to 1 (white)", "reconstruction"),
    ("_rmse", "its root", "reconstruction"),
    ("_mae", "mean absolute error of rebuilt pixels, likewise", "reconstruction"),
    ("_r2", "share of the pixels' variance that is rebuilt; 1 is ideal", "reconstruction"),
    ("_psnr", "peak signal to noise of rebuilt pictures, in decibels; higher is better", "reconstruction"),
)


def write(
    target: Path,
    plan: Recipe,
    checked: CheckedManifest,
    shards: Shards,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    verdict: Verdict,
    links: Sequence[tuple[str, str]],
    champion: Evaluation | None = None,
    past: Past | None = None,
) -> Path:
    """Write the page of a run to ``target`` and return it. Everything shown is escaped: captions are hostile text.

    ``links`` are addresses with what they lead to. ``champion``: what the champion's evaluation found, for comparison.
    ``past``: the model's versions before this one, over which its measures are spread, and their comparisons.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from darkroom.evaluation.reconstruction import is_autoencoder

    past = past or Past()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    found, sides, judgement = summary(checked), read_index(shards)["sides"], read_verdict(verdict)
    prompts: list[str] = json.loads((evaluation.path / "prompts.json").read_text("utf-8"))
    artifacts = (checked, shards, checkpoint, evaluation, verdict)
    page = environment.get_template("page.html.j2").render(
        name=plan.name,
        seed=plan.seed,
        steps=f"{plan.train.steps:,}",
        batch=plan.train.batch,
        checkpoint=checkpoint.digest,
        verdict=judgement,
        rules=[_rule_row(rule) for rule in judgement.rules],
        looks=_svg(looks(judgement.looks, judgement.rules[0].wanted)) if len(judgement.looks) > 1 else None,
        count=f"{judgement.count:,}",
        planned=f"{judgement.planned:,}",
        budget=f"{judgement.budget:,}",
        alpha=f"{judgement.alpha:.0%}",
        comparisons=past.comparisons + 1,
        expected=f"{past.false_promotions + judgement.alpha:.3g}",
        sides=_sides(verdict),
        compared=champion is not None,
        groups=_group_rows(evaluation, champion),
        times=_time_rows(evaluation),
        steps_shown=_through(checkpoint),
        script=_svg(SCRIPT),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}",
        grid=_inline((evaluation.path / "grid.png").read_bytes()),
        suspects=_inline(shown.read_bytes()) if (shown := evaluation.path / "suspects.png").is_file() else None,
        curve=_inline(_curve(checkpoint)),
        last=_last_values(checkpoint),
        rebuilt=is_autoencoder(checkpoint.path / "pipeline"),
        prompts=[prompt for prompt in prompts[:8] if prompt],
        measures=measure_rows(metrics_of(evaluation), plan.gate, metrics_of(champion) if champion else {}),
        steady=steady_rows([_made(plan, shards, evaluation), *past.made]),
        data=[
            ("rows in the manifest", f"{found['rows']:,}"),
            ("accepted", f"{found['accepted']:,}"),
            ("in quarantine", f"{found['quarantined']:,}"),
            ("of these duplicates", f"{found['duplicates']:,}"),
            ("trained on", f"{sides['train']:,}"),
            ("kept for validation", f"{sides['validation']:,}"),
        ],
        findings=found["findings"],
        links=[{"href": href, "text": text} for text, href in links],
        digests=[(artifact.kind, artifact.digest) for artifact in artifacts],
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(page, "utf-8")
    temporary.replace(target)
    return target


def _made(plan: Recipe, shards: Shards, evaluation: Evaluation) -> Trained:
    """This version as MLflow will know it."""
    params = {name: cut(text, PARAM_LENGTH) for name, text in flatten(plain(portable(plan))).items()}
    return trained(params, shards.digest, metrics_of(evaluation))


def measure_rows(metrics: dict[str, float], gate: Gate, champion: dict[str, float]) -> list[dict[str, str]]:
    """Name, value, limit and meaning of each measure, and the champion's value."""
    rows = []
    for name, value in sorted(metrics.items()):
        limit = gate.limits.get(name)
        bounds = [
            f"≥ {limit.min:g}" if limit and limit.min is not None else "",
            f"≤ {limit.max:g}" if limit and limit.max is not None else "",
        ]
        rows.append(
            {
                "name": name,
                "value": f"{value:.4g}",
                "champion": f"{champion[name]:.4g}" if name in champion else "",
                "limit": " ".join(filter(None, bounds)),
                "meaning": meaning(name),
            }
        )
    return rows


def meaning(name: str) -> str:
    """One sentence on a measure; the longest fitting ending decides. ``other/measure`` is one on another data set."""
    if "/" in name:
        other, measure = name.split("/", 1)
        return f"on {other}: {meaning(measure)}" if meaning(measure) else ""
    fitting = [row for row in MEANINGS if name.endswith(row[0]) and name.startswith(row[2])]
    return max(fitting, key=lambda row: (len(row[0]), len(row[2])))[1] if fitting else ""


def _rule_row(rule: Rule) -> dict[str, Any]:
    """A rule of the gate as the table shows it."""
    primary = rule.wanted > 0
    return {
        "kind": "primary" if primary else "guard",
        "title": MEASURES[rule.name].title,
        "measure": rule.measure,
        "challenger": f"{rule.challenger:.4g}",
        "champion": f"{rule.champion:.4g}",
        "gain": f"{rule.gain:+.3g}",
        "low": f"{rule.low:+.3g}",
        "high": f"{rule.high:+.3g}",
        "asked": f"better; {rule.wanted:.3g} is worth a change" if primary else f"not worse by {-rule.wanted:.3g}",
        "state": rule.state,
        "chart": _svg(interval(rule.gain, rule.low, rule.high, rule.wanted)),
    }


def _sides(verdict: Verdict) -> list[dict[str, Any]]:
    """Pictures of both models from the same noise and prompts, where they were drawn."""
    names = ("challenger", "champion")
    if not all((verdict.path / f"{name}.png").is_file() for name in names):
        return []
    prompts = [prompt for prompt in json.loads((verdict.path / "prompts.json").read_text("utf-8"))[:8] if prompt]
    return [
        {"name": name, "image": _inline((verdict.path / f"{name}.png").read_bytes()), "prompts": prompts}
        for name in names
    ]


def _group_rows(evaluation: Evaluation, champion: Evaluation | None) -> list[dict[str, str]]:
    """Each class or prompt, with the champion's values where it was asked the same."""
    both = [_json(one, "groups.json") for one in (evaluation, champion)]
    known = {one["name"]: one for one in both[1]}
    rows = []
    for one in both[0]:
        old = known.get(one["name"], {})
        rows.append(
            {
                "name": one["name"] or "(nothing)",
                "count": f"{one['count']:,}",
                "score": _number(one["clip_score"], ".1f"),
                "old_score": _number(old.get("clip_score"), ".1f"),
                "precision": _number(one["precision"], ".0%"),
                "old_precision": _number(old.get("precision"), ".0%"),
            }
        )
    return rows if len(rows) > 1 else []


def _time_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    return [{name: f"{value:.3g}" for name, value in one.items()} for one in _json(evaluation, "denoising.json")]


def _json(evaluation: Evaluation | None, name: str) -> list[dict[str, Any]]:
    """What an evaluation wrote, or nothing: an autoencoder's has other files."""
    if evaluation is None or not (evaluation.path / name).is_file():
        return []
    found: list[dict[str, Any]] = json.loads((evaluation.path / name).read_text("utf-8"))
    return found


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _through(checkpoint: Checkpoint) -> list[dict[str, str]]:
    """Grids on fixed noise, from the first to the last, some of them where there are many."""
    paths = sorted((checkpoint.path / "grids").glob("*.png"))
    chosen = sorted({round(place * (len(paths) - 1) / (SHOWN - 1)) for place in range(SHOWN)}) if paths else []
    return [{"step": f"{int(paths[place].stem):,}", "image": _small(paths[place])} for place in chosen]


def _small(path: Path) -> str:
    """A grid no wider than the page shows it; large photos as JPEG, so that the page stays light."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.width <= WIDEST:
            return _inline(path.read_bytes())
        small = picture.convert("RGB").resize((WIDEST, round(picture.height * WIDEST / picture.width)))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _svg(markup: str) -> Any:
    """Markup of our own, made of numbers alone: not to be escaped."""
    from markupsafe import Markup

    return Markup(markup)  # nothing in it comes from outside


def _curve(checkpoint: Checkpoint) -> bytes:
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        return loss_curve(checkpoint.path / FILE, Path(folder) / "loss.png").read_bytes()


def _last_values(checkpoint: Checkpoint) -> str:
    last: dict[str, Any] = {}
    for event in read(checkpoint.path / FILE):
        last |= event.get("metrics", {})
    distances = sorted(name for name in last if DISTANCE.fullmatch(name))
    shown = [name for name in ("train/loss", "validation/loss", *distances) if name in last]
    return ", ".join(f"{name.replace('/', ' ')} {last[name]:.4g}" for name in shown)


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
