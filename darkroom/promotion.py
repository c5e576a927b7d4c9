"""From a verdict to the registry: one version a checkpoint, and the alias that the verdict allows.

Each step may be interrupted and done again. The order makes that safe: the version exists before an alias points to it,
what is about to be decided is written on the version before the alias moves, and the tag that says "done" comes last.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from . import history, provenance
from .artifacts import CheckedManifest, Checkpoint, Evaluation, Verdict
from .errors import DarkroomError
from .evaluation.evaluate import metrics_of
from .evaluation.gate import Judgement
from .evaluation.verdict import read
from .recipe import Gate, Recipe
from .registry import Registry, Version
from .store import Store, marker, write_json
from .tracking import RunDescription
from .training.events import FILE as EVENTS

EXTRAS = ("lora", "learned_embeds.safetensors")
EVALUATION, VERDICT, PENDING = "darkroom.evaluation", "darkroom.verdict", "darkroom.verdict_pending"

Decision = Literal["promoted", "challenger", "kept_champion", "unchanged"]


@dataclass(frozen=True)
class Registered:
    """A version, what was decided about it, and in words why. ``reused``: the registry knew all of it."""

    decision: Decision
    name: str
    version: str
    uri: str
    run_id: str
    reason: str
    reused: bool = field(default=False, compare=False)

    def model(self) -> dict[str, str]:
        """What the outcome says of the model."""
        return {key: str(asdict(self)[key]) for key in ("name", "version", "uri", "run_id")}


def recorded_verdict(champion: Version, evaluation: Evaluation, gate: Gate, store: Store) -> Verdict | None:
    """The verdict that made this version champion, or was about to, if this evaluation and this gate led to it."""
    if champion.tags.get(EVALUATION) != evaluation.digest:
        return None
    digest = champion.tags.get(PENDING) or champion.tags.get(VERDICT)
    found = store.find(Verdict, digest) if digest else None
    return found if found and marker(found)["fields"] == gate.digest_fields() else None


def settle(
    registry: Registry,
    run: RunDescription,
    plan: Recipe,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    verdict: Verdict,
    checked: CheckedManifest,
    report: Path,
    store: Store,
    flow_run: Mapping[str, str] | None = None,
) -> Registered:
    """Register the checkpoint and move the alias as far as the verdict and the recipe allow.

    ``flow_run``: name, id and url of the run that does so, for those who ask later.
    """
    with store.lock(f"registry-{plan.name}"):
        known = registry.version_of(plan.name, checkpoint.digest)
        if known is not None and (known.tags.get(EVALUATION), known.tags.get(VERDICT)) == (
            evaluation.digest,
            verdict.digest,
        ):
            return _registered(
                "unchanged", known, "nothing is new: data, recipe and code are those of this version", True
            )

        run_id = run.open(registry)
        metrics = metrics_of(evaluation)
        results = {
            "samples.png": evaluation.path / "grid.png",
            "verdict.json": verdict.path / "verdict.json",
            "data_docs": checked.path / "data_docs",
            "review": checked.path / "review",
            "report.html": report,
        }
        judgement = read(verdict)
        compared_with = marker(verdict)["inputs"]["champion_checkpoint"]
        judged = history.Judged.of(judgement, _compared(registry, plan.name, compared_with, checkpoint))
        tags = {**run.tags, EVALUATION: evaluation.digest, PENDING: verdict.digest, history.RUN: run_id}
        tags |= history.judged_tag(verdict.digest, judged)
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            record = Path(folder) / provenance.FILE
            place = f"{report.parent.name}/{report.name}"
            counts = {"rows": run.dataset.rows, **run.dataset.profile, "source": run.dataset.source}
            write_json(
                record,
                provenance.gather(plan, checkpoint, evaluation, checked, counts, store, place, flow_run),
            )
            provenance.remember(plan, store)
            results[provenance.FILE] = record
            if known is None:
                registry.log_events(run_id, checkpoint.path / EVENTS)
                published = publish(plan, checkpoint, metrics, Path(folder) / "pipeline")
                version = registry.register(
                    plan.name,
                    run_id,
                    published,
                    checkpoint=checkpoint.digest,
                    tags=tags,
                    description=_words(judgement, metrics),
                    model_description=plan.register_.description,
                    metrics=metrics,
                    artifacts=results,
                )
            else:
                registry.log_results(run_id, None, metrics, results)
                version = registry.annotate(known, tags=tags, metrics=metrics)
        champion = registry.with_alias(plan.name, "champion")
        is_champion = champion is not None and champion.version == version.version
        was_deciding = (known is None or bool(known.tags.get(PENDING))) and compared_with != checkpoint.digest
        if not is_champion and (champion.checkpoint if champion else "") != compared_with:
            raise DarkroomError(
                f"another run made {champion.uri if champion else 'no version'} the champion of {plan.name} while this "
                "one compared with the one before; nothing is lost: run the same command again"
            )

        decision = decide(judgement, plan, is_champion, was_deciding)
        if decision == "promoted":
            why = "; ".join(judgement.reasons)
            history.record_move(registry, version, who=history.GATE, why=why, champion=champion, verdict=verdict.digest)
            version = registry.set_alias(version, "champion")
            _drop_challenger(registry, plan.name, version)
        elif decision == "challenger":
            version = registry.set_alias(version, "challenger")
        else:
            _drop_challenger(registry, plan.name, version)
        if is_champion and decision == "unchanged":
            words = f"{version.description} Measured anew: {_words(judgement, metrics)}"
            version = registry.annotate(version, description=words, tags={VERDICT: verdict.digest, PENDING: ""})
            registry.close_run(run_id)
            return _registered(decision, version, "; ".join(judgement.reasons), False)
        against = f", against version {champion.version}" if champion is not None and not is_champion else ""
        words = f"{decision.replace('_', ' ')}{against}. {_words(judgement, metrics)}"
        version = registry.annotate(version, description=words[:1].upper() + words[1:])
        registry.annotate(version, tags={VERDICT: verdict.digest, PENDING: ""})
        registry.close_run(run_id)
        return _registered(decision, version, "; ".join(judgement.reasons), False)


def _compared(registry: Registry, model: str, champion: str, checkpoint: Checkpoint) -> Version | None:
    """The version that was compared with, by the digest of its checkpoint; None where there was no comparison."""
    return registry.version_of(model, champion) if champion not in ("", checkpoint.digest) else None


def decide(judgement: Judgement, plan: Recipe, is_champion: bool, was_deciding: bool) -> Decision:
    """What a judgement leads to. ``was_deciding``: the version is new, or a killed run had begun to decide on it.

    A champion that is only measured anew stays what it is.
    """
    if is_champion:
        return "promoted" if was_deciding and judgement.decision == "PASS" else "unchanged"
    if judgement.decision == "FAIL":
        return "kept_champion"
    if judgement.decision == "PASS" and plan.register_.promote == "auto":
        return "promoted"
    return "challenger"


def publish(plan: Recipe, checkpoint: Checkpoint, metrics: dict[str, float], target: Path) -> Path:
    """The pipeline as it is registered: with its measures on the card, and the sampler that it was judged with."""
    from .diffusion.pipeline import publish as copy

    card = (checkpoint.path / "pipeline" / "README.md").read_text("utf-8")
    table = "\n".join(f"| {name} | {value:.5g} |" for name, value in sorted(metrics.items()))
    measured = f"\n## Measures\n\nOn the validation side of its data.\n\n| measure | value |\n|---|---:|\n{table}\n"
    copy(checkpoint.path / "pipeline", target, card + measured, plan.evaluate.sampler, plan.train.threads)
    for name in EXTRAS:  # what was taught, without the base
        if (found := checkpoint.path / name).is_dir():
            shutil.copytree(found, target / name)
        elif found.is_file():
            shutil.copy(found, target / name)
    return target


def _drop_challenger(registry: Registry, model: str, version: Version) -> None:
    """A version that was decided on waits no longer."""
    waiting = registry.with_alias(model, "challenger")
    if waiting is not None and waiting.version == version.version:
        registry.delete_alias(model, "challenger")


def _words(judgement: Judgement, metrics: dict[str, float]) -> str:
    """The verdict and its reasons, as the version's page shows them."""
    value = metrics.get(judgement.measure)
    measured = f" ({judgement.measure} {value:.4g})" if value is not None else ""
    return f"{judgement.decision}: {'; '.join(judgement.reasons)}{measured}."


def _registered(decision: Decision, version: Version, reason: str, reused: bool) -> Registered:
    return Registered(decision, version.model, version.version, version.uri, version.run_id, reason, reused)


def promote(registry: Registry, model: str, version: str, who: str, why: str = "") -> str:
    """Make a version the champion by hand; returns what was done. Raises ``RecipeError`` for an unknown version.

    ``who`` and ``why`` are written on the version, for its history.
    """
    chosen = registry.resolve(f"{model}@challenger" if version == "challenger" else f"{model}/{version}")
    before = registry.with_alias(model, "champion")
    if before is not None and before.version == chosen.version:
        return f"{chosen.uri} is the champion already"
    reason = why or "by hand; no reason was given"
    history.record_move(registry, chosen, who=who, why=reason, champion=before, verdict="")
    chosen = registry.set_alias(chosen, "champion")
    _drop_challenger(registry, model, chosen)
    against = f" instead of version {before.version}" if before else ""
    because = f": {why}" if why else ""
    registry.annotate(chosen, description=f"Promoted by hand{against}{because}. {chosen.description}")
    return f"{chosen.uri} is now the champion{against}"
