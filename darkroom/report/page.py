"""The page of a run: one file that opens offline, in light and dark, on a phone."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from darkroom.artifacts import CheckedManifest, Checkpoint, Evaluation, Shards, Verdict
from darkroom.evaluation.evaluate import metrics_of
from darkroom.evaluation.verdict import read as read_verdict
from darkroom.preprocess.shards import read_index
from darkroom.quality.check import summary
from darkroom.recipe import Gate, Recipe
from darkroom.training.events import FILE, read

from .charts import loss_curve

# What a measure says, by the end or the start of its name.
MEANINGS = (
    (
        "_ratio",
        "generated against held-out pictures, over the same for real training pictures; about 1 is as good as it gets",
        "fd_",
    ),
    ("_train", "the same distance for real training pictures, for comparison", "fd_"),
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
    docs_link: str,
) -> Path:
    """Write the page of a run to ``target`` and return it. Everything shown is escaped: captions are hostile text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    found, sides = summary(checked), read_index(shards)["sides"]
    prompts: list[str] = json.loads((evaluation.path / "prompts.json").read_text("utf-8"))
    artifacts = (checked, shards, checkpoint, evaluation, verdict)
    page = environment.get_template("page.html.j2").render(
        name=plan.name,
        seed=plan.seed,
        steps=f"{plan.train.steps:,}",
        batch=plan.train.batch,
        checkpoint=checkpoint.digest,
        verdict=read_verdict(verdict),
        grid=_inline((evaluation.path / "grid.png").read_bytes()),
        suspects=_inline(shown.read_bytes()) if (shown := evaluation.path / "suspects.png").is_file() else None,
        curve=_inline(_curve(checkpoint)),
        last=_last_values(checkpoint),
        rebuilt=any(name.startswith("reconstruction_") for name in metrics_of(evaluation)),
        prompts=[prompt for prompt in prompts[:8] if prompt],
        measures=measure_rows(metrics_of(evaluation), plan.gate),
        data=[
            ("rows in the manifest", f"{found['rows']:,}"),
            ("accepted", f"{found['accepted']:,}"),
            ("in quarantine", f"{found['quarantined']:,}"),
            ("of these duplicates", f"{found['duplicates']:,}"),
            ("trained on", f"{sides['train']:,}"),
            ("kept for validation", f"{sides['validation']:,}"),
        ],
        findings=found["findings"],
        docs=docs_link,
        digests=[(artifact.kind, artifact.digest) for artifact in artifacts],
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(page, "utf-8")
    temporary.replace(target)
    return target


def measure_rows(metrics: dict[str, float], gate: Gate) -> list[dict[str, str]]:
    """Name, value, limit and meaning of each measure."""
    rows = []
    for name, value in sorted(metrics.items()):
        limit = gate.limits.get(name)
        bounds = [
            f"≥ {limit.min:g}" if limit and limit.min is not None else "",
            f"≤ {limit.max:g}" if limit and limit.max is not None else "",
        ]
        rows.append(
            {"name": name, "value": f"{value:.4g}", "limit": " ".join(filter(None, bounds)), "meaning": meaning(name)}
        )
    return rows


def meaning(name: str) -> str:
    """One sentence on a measure; the longest fitting ending decides."""
    fitting = [row for row in MEANINGS if name.endswith(row[0]) and name.startswith(row[2])]
    return max(fitting, key=lambda row: (len(row[0]), len(row[2])))[1] if fitting else ""


def _curve(checkpoint: Checkpoint) -> bytes:
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        return loss_curve(checkpoint.path / FILE, Path(folder) / "loss.png").read_bytes()


def _last_values(checkpoint: Checkpoint) -> str:
    last: dict[str, Any] = {}
    for event in read(checkpoint.path / FILE):
        last |= event.get("metrics", {})
    return ", ".join(
        f"{name.replace('/', ' ')} {last[name]:.4g}" for name in ("train/loss", "validation/loss") if name in last
    )


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
