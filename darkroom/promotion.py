"""From a verdict to the registry: one version a checkpoint, and the alias that the verdict allows.

Each step may be interrupted and done again. The order makes that safe: the version exists before an alias points to it,
what is about to be decided is written on the version before the alias moves, and the tag that says "done" comes last.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from . import history, links, provenance
from ._registry import cut
from .artifacts import CheckedManifest, Checkpoint, Evaluation, Verdict
from .champion import CHALLENGER, DESCRIPTION, Moved, Smoke, drop_challenger, lock_of, move, notice
from .errors import DarkroomError, RecipeError
from .evaluation.evaluate import metrics_of
from .evaluation.gate import Judgement
from .evaluation.verdict import read
from .question import ASKED
from .recipe import Gate, Recipe
from .registry import Registry, Version
from .smoke import draws
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
    waits: bool = field(default=False, compare=False)
    """It waits for a person's decision since now."""
    moves: tuple[Moved, ...] = field(default=(), compare=False)
    """Moves of the champion's alias that were made, or noticed, on the way."""

    def model(self) -> dict[str, str]:
        """What the outcome says of the model."""
        return {key: str(getattr(self, key)) for key in ("name", "version", "uri", "run_id")}


@dataclass(frozen=True)
class Done:
    """What a person's decision came to, in words, and the moves of the champion's alias on the way."""

    words: str
    moves: tuple[Moved, ...] = ()


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
    smoke: Smoke = draws,
    base: str = "",
) -> Registered:
    """Register the checkpoint and move the alias as far as the verdict and the recipe allow.

    ``flow_run``: name, id and url of the run that does so, for those who ask later. ``base``: where the report's folder
    is served, for the links of its copy in MLflow. Raises
    :class:`darkroom.errors.Unservable` where a version that passed draws nothing: it is registered, and the champion
    stays.
    """
    with store.lock(f"registry-{plan.name}"):
        noticed = notice(registry, plan.name, store)
        moves = [noticed] if noticed else []
        known = registry.version_of(plan.name, checkpoint.digest)
        if known is not None and (known.tags.get(EVALUATION), known.tags.get(VERDICT)) == (
            evaluation.digest,
            verdict.digest,
        ):
            words = "nothing is new: data, recipe and code are those of this version"
            return _registered("unchanged", known, words, reused=True, moves=moves)

        run_id = run.open(registry)
        metrics = metrics_of(evaluation)
        results = {
            "samples.png": evaluation.path / "grid.png",
            "verdict.json": verdict.path / "verdict.json",
            "data_docs": checked.path / "data_docs",
            "review": checked.path / "review",
        }
        judgement = read(verdict)
        compared_with = marker(verdict)["inputs"]["champion_checkpoint"]
        judged = history.Judged.of(judgement, _compared(registry, plan.name, compared_with, checkpoint))
        tags = {**run.tags, EVALUATION: evaluation.digest, PENDING: verdict.digest, history.RUN: run_id}
        tags |= history.judged_tag(verdict.digest, judged)
        if known is not None and ASKED in known.tags:
            tags[ASKED] = ""  # that comparison was another question
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            record, copied = Path(folder) / provenance.FILE, Path(folder) / "report.html"
            copied.write_text(links.based(report.read_text("utf-8"), base), "utf-8")
            results["report.html"] = copied
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

        decision, reason = decide(judgement, plan, is_champion, was_deciding), "; ".join(judgement.reasons)
        no = _no_of_a_person(registry, known) if known is not None and not is_champion else None
        if decision == "promoted" and no:
            decision, reason = "kept_champion", f"{no}; {reason}"
        waits = False
        if decision == "promoted" and not is_champion:
            moved = move(
                registry,
                version,
                store,
                upon=champion,
                who=history.GATE,
                why=reason,
                verdict=verdict.digest,
                smoke=smoke,
            )
            moves.append(moved)
            version = moved.version
        elif decision == "challenger":
            killed = known is not None and bool(known.tags.get(PENDING))  # it may have told nobody
            waits = plan.register_.promote == "ask" and (killed or CHALLENGER not in version.aliases)
            version = registry.set_alias(version, CHALLENGER)
        else:
            drop_challenger(registry, version)
        if is_champion and decision == "unchanged":
            words = f"{version.description} Measured anew: {_words(judgement, metrics)}"
            version = registry.annotate(version, description=words, tags={VERDICT: verdict.digest, PENDING: ""})
            registry.close_run(run_id)
            return _registered(decision, version, reason, moves=moves)
        against = f", against version {champion.version}" if champion is not None and not is_champion else ""
        by = f" by {history.GATE} at {history.now()}" if decision == "promoted" else ""
        words = f"{decision.replace('_', ' ')}{by}{against}. {_words(judgement, metrics)}"
        version = registry.annotate(version, description=words[:1].upper() + words[1:])
        registry.annotate(version, tags={VERDICT: verdict.digest, PENDING: ""})
        registry.close_run(run_id)
        return _registered(decision, version, reason, waits=waits, moves=moves)


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


def _no_of_a_person(registry: Registry, version: Version) -> str | None:
    """The sentence in which a person refused a version or rolled it back, which the gate does not overrule."""
    if refusals := history.refusals_of(version):
        last = refusals[-1]
        return f"{last.who} refused it at {last.when} ({last.why}), so only a person promotes it"
    own = {one.number for one in history.moves_of(version)}
    for other in registry.versions(version.model):
        for one in history.moves_of(other):
            if one.undoes in own:
                return f"{one.who} rolled it back at {one.when} ({one.why}), so only a person promotes it"
    return None


def _words(judgement: Judgement, metrics: dict[str, float]) -> str:
    """The verdict and its reasons, as the version's page shows them."""
    value = metrics.get(judgement.measure)
    measured = f" ({judgement.measure} {value:.4g})" if value is not None else ""
    return f"{judgement.decision}: {'; '.join(judgement.reasons)}{measured}."


def _registered(
    decision: Decision,
    version: Version,
    reason: str,
    *,
    reused: bool = False,
    waits: bool = False,
    moves: Sequence[Moved] = (),
) -> Registered:
    names = (version.model, version.version, version.uri, version.run_id)
    return Registered(decision, *names, reason, reused, waits, tuple(moves))


# By people


def promote(
    registry: Registry, model: str, version: str, who: str, why: str, store: Store, smoke: Smoke = draws
) -> Done:
    """Make a version the champion by hand. Raises ``RecipeError`` for an unknown version.

    ``who`` and ``why`` are written on the version, for its history.
    """
    noticed = notice(registry, model, store)
    seen = (noticed,) if noticed else ()
    chosen = registry.resolve(f"{model}@{CHALLENGER}" if version == CHALLENGER else f"{model}/{version}")
    before = registry.with_alias(model, "champion")
    if before is not None and before.version == chosen.version:
        return Done(f"{chosen.uri} is the champion already", seen)
    reason = why or "by hand; no reason was given"
    moved = move(registry, chosen, store, upon=before, who=who, why=reason, smoke=smoke)
    against = f" instead of version {before.version}" if before else ""
    return Done(f"{chosen.uri} is now the champion{against}", (*seen, moved))


def refuse(registry: Registry, model: str, version: str, who: str, why: str, store: Store) -> Done:
    """Take the challenger's alias away from a version, with the reason written on it; the champion stays.

    Raises ``RecipeError`` for a version that does not wait.
    """
    noticed = notice(registry, model, store)
    with store.lock(lock_of(model)):
        chosen = registry.resolve(f"{model}@{CHALLENGER}" if version == CHALLENGER else f"{model}/{version}")
        if CHALLENGER not in chosen.aliases:
            aliases = f"it is the {' and '.join(chosen.aliases)}" if chosen.aliases else "no alias points to it"
            raise RecipeError(
                f"{chosen.uri} does not wait to become champion, so there is nothing to refuse: {aliases}"
            )
        champion = registry.with_alias(model, "champion")
        against = history.Against(champion.version, champion.checkpoint) if champion else None
        reason = cut(why or "no reason was given", history.WORDS)
        told = history.Refusal(who, history.now(), reason, against)
        stays = f"; version {champion.version} stays the champion" if champion else ""
        words = cut(f"Refused by {who} at {told.when}{stays}: {reason}. {chosen.description}", DESCRIPTION)
        number = len(history.refusals_of(chosen)) + 1
        registry.annotate(chosen, tags=history.refusal_tag(told, number), description=words)
        registry.delete_alias(model, CHALLENGER)
    return Done(f"{chosen.uri} is refused{stays}", (noticed,) if noticed else ())


def rollback(registry: Registry, model: str, who: str, why: str, store: Store, smoke: Smoke = draws) -> Done:
    """Make the champion before the present one champion again; once more goes back one more.

    Raises ``RecipeError`` where no champion is on record before this one.
    """
    noticed = notice(registry, model, store)
    standing = registry.with_alias(model, "champion")
    versions = registry.versions(model)
    line = history.line_of([one for each in versions for one in history.moves_of(each)])
    if standing is None or len(line) < 2:
        now = f"{standing.uri} is the first champion on record" if standing else f"{model} has no champion on record"
        raise RecipeError(f"{now}: there is none before it to go back to; `darkroom promote {model} VERSION` takes any")
    chosen = next(one for one in versions if one.version == line[-2].version)
    reason = why or "rolled back; no reason was given"
    moved = move(registry, chosen, store, upon=standing, who=who, why=reason, undoes=line[-1].number, smoke=smoke)
    words = f"{chosen.uri} is the champion again instead of version {standing.version}"
    return Done(words, (*((noticed,) if noticed else ()), moved))
