"""What a person is asked about a challenger: the verdict, both models' pictures, and where to look closer.

All of it is read from MLflow; the store adds the pictures of the comparison, drawn from the same noise, where it still
has them.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from . import history, links
from .artifacts import Checkpoint, Evaluation, Verdict
from .champion import CHALLENGER, CHAMPION, notice
from .errors import RecipeError
from .evaluation.gate import Judgement
from .evaluation.verdict import read
from .recipe import Recipe
from .registry import Registry, Version
from .settings import Settings
from .store import Store

ASKED = "darkroom.asked_verdict"
"""Tag of a version: the verdict of the last comparison that a person asked for, with more pictures than the gate's."""
MORE = 4  # times as many pictures, where a person asks for more and names no number
PICTURES = ("challenger", "champion")


@dataclass(frozen=True)
class Question:
    """May ``version`` replace ``champion``? Or, where ``settled`` is a sentence, why there is nothing to ask."""

    version: Version
    champion: Version | None
    settled: str | None
    verdict: str = ""
    """The digest of the verdict."""
    judgement: Judgement | None = None
    stale: bool = False
    """The verdict is against a version that is no longer the champion."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """PNG grids of "challenger" and "champion"."""
    shown: dict[str, str] = field(default_factory=dict)
    """Where the reports' server shows them, as far as they are in the store."""
    links: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What the question is about: another champion or another verdict makes it another question."""
        champion = self.champion.version if self.champion else "none"
        return f"{self.version.version}-{champion}-{self.verdict[:12]}"


def look(registry: Registry, model: str, version: str, settings: Settings, store: Store) -> Question:
    """The question about a version as it is now. Raises ``RecipeError`` for an unknown version."""
    notice(registry, model, store)
    chosen = registry.resolve(f"{model}@{CHALLENGER}" if version == CHALLENGER else f"{model}/{version}")
    champion = registry.with_alias(model, CHAMPION)
    if settled := _settled(registry, chosen, champion):
        return Question(chosen, champion, settled)
    digest = verdict_of(chosen)
    verdict = store.find(Verdict, digest) if digest else None
    judgement = read(verdict) if verdict else _recorded(registry, chosen)
    judged = history.judged_of(chosen)
    against = judged[-1].against.version if judged and judged[-1].against else None
    limits_alone = judgement is not None and not judgement.rules
    stale = champion is not None and against != champion.version and not (limits_alone and against is None)
    grids = _grids(chosen, champion, verdict, store)
    return Question(
        *(chosen, champion, None, digest, judgement, stale),
        pictures=_pictures(registry, chosen, champion, grids),
        shown={name: settings.link(path) for name, path in grids.items()},
        links=_links(registry, chosen, champion, settings),
    )


def verdict_of(version: Version) -> str:
    """The digest of the verdict that counts: of the comparison that a person asked for, or of the gate's."""
    return version.tags.get(ASKED) or version.tags.get("darkroom.verdict", "")


def asked_for(registry: Registry, version: Version, verdict: Verdict, champion: Version | None) -> Version:
    """Write the verdict of a comparison that a person asked for on the version."""
    judged = history.Judged.of(read(verdict), champion)
    return registry.annotate(version, tags={**history.judged_tag(verdict.digest, judged), ASKED: verdict.digest})


def with_more(plan: Recipe, count: int) -> Recipe:
    """The recipe as a version was judged by, with this many pictures of each at most.

    Limits on other data sets are left out: those sets have no versions to go back to.
    """
    limits = {name: limit for name, limit in plan.gate.limits.items() if "/" not in name}
    gate = plan.gate.model_copy(update={"count": max(count, plan.gate.first), "limits": limits})
    return plan.model_copy(update={"gate": gate})


def checkpoint_of(registry: Registry, version: Version, store: Store) -> Checkpoint:
    """A version's checkpoint: the store's, or the registered pipeline in its place."""
    found = store.find(Checkpoint, version.checkpoint) if version.checkpoint else None
    return found or Checkpoint(version.checkpoint, registry.pipeline_folder(version).parent)


def _settled(registry: Registry, version: Version, champion: Version | None) -> str | None:
    """Why nobody need be asked; None where the version waits."""
    if champion is not None and champion.version == version.version:
        moves = history.moves_of(version)
        by = f", promoted by {moves[-1].who} at {moves[-1].when}: {moves[-1].why}" if moves else ""
        return f"{version.uri} is the champion already{by}"
    if CHALLENGER in version.aliases:
        return None
    if refusals := history.refusals_of(version):
        last = refusals[-1]
        return f"{version.uri} no longer waits: {last.who} refused it at {last.when}: {last.why}"
    other = registry.with_alias(version.model, CHALLENGER)
    instead = f"version {other.version} is the challenger now" if other else "no version is the challenger now"
    return f"{version.uri} no longer waits: {instead}"


def _recorded(registry: Registry, version: Version) -> Judgement | None:
    """The gate's verdict as MLflow keeps it."""
    run_id = version.tags.get(history.RUN) or version.run_id
    content = registry.artifact(run_id, "verdict.json") if run_id else None
    return Judgement.of(json.loads(content)) if content else None


def _grids(version: Version, champion: Version | None, verdict: Verdict | None, store: Store) -> dict[str, Path]:
    """The grids that the store has: both of the comparison, or else those of each version's own evaluation."""
    both = {} if verdict is None else {name: verdict.path / f"{name}.png" for name in PICTURES}
    if both and all(map(Path.is_file, both.values())):
        return both
    found = {}
    for name, one in zip(PICTURES, (version, champion), strict=True):
        digest = one.tags.get("darkroom.evaluation") if one else None
        if digest and (evaluation := store.find(Evaluation, digest)):
            found[name] = evaluation.path / "grid.png"
    return {name: path for name, path in found.items() if path.is_file()}


def _pictures(
    registry: Registry, version: Version, champion: Version | None, grids: dict[str, Path]
) -> dict[str, bytes]:
    """The grids of the store, and what it lacks of each version's own from MLflow."""
    found = {}
    for name, one in zip(PICTURES, (version, champion), strict=True):
        run_id = (one.tags.get(history.RUN) or one.run_id) if one else ""
        if name in grids:
            found[name] = grids[name].read_bytes()
        elif run_id and (content := registry.artifact(run_id, "samples.png")):
            found[name] = content
    return found


def _links(registry: Registry, version: Version, champion: Version | None, settings: Settings) -> dict[str, str]:
    """Where to look closer."""
    found = {f"version {version.version} in MLflow": links.version(settings, version.model, version.version)}
    if champion is not None:
        name = f"version {champion.version}, the champion, in MLflow"
        found[name] = links.version(settings, champion.model, champion.version)
    page = settings.root / "reports" / f"{version.model}-{version.tags.get('darkroom.verdict', '')[:12]}.html"
    if page.is_file():
        found["the run's page"] = settings.link(page)
    if run_id := version.tags.get(history.RUN) or version.run_id:
        experiment = str(registry.run(run_id)["info"]["experiment_id"])
        found["the same page in MLflow"] = links.run(settings, experiment, run_id, "report.html")
    return found


# In words


def markdown(question: Question, remark: str = "") -> str:
    """The question as Prefect's form shows it; ``remark`` is what came of the answer before."""
    version, champion, judgement = question.version, question.champion, question.judgement
    what = f"replace version {champion.version} as the champion" if champion else "become the first champion"
    lines = [f"# May version {version.version} of {version.model} {what}?", ""]
    if remark:
        lines += [f"*{plain(remark)}*", ""]
    if judgement is None:
        lines += ["No verdict is on record: look at the pictures.", ""]
    else:
        lines += [f"**{judgement.decision}**, {_meaning(judgement)}", ""]
        lines += [*(f"- {plain(reason)}" for reason in judgement.reasons), ""]
        if judgement.rules:
            lines += ["| measure | challenger | champion | gain, and between what it lies |", "|---|---:|---:|---|"]
            lines += [
                f"| {one.measure} | {one.challenger:.4g} | {one.champion:.4g} | "
                f"{one.gain:+.3g} ({one.low:+.3g} to {one.high:+.3g}): {one.state} |"
                for one in judgement.rules
            ]
            lines += ["", f"Compared on {judgement.count:,} pictures of each, from the same noise and prompts.", ""]
    if question.stale and champion:
        lines += [f"This verdict is not against version {champion.version}, which became champion since.", ""]
    lines += [" · ".join(f"[{name}]({address})" for name, address in question.links.items()), ""]
    for name, address in question.shown.items():
        lines += [f"The {name}:", "", f"![the pictures of the {name}]({address})", ""]
    shown = " and ".join(f"`promotion-{name}`" for name in PICTURES if name in question.pictures)
    if shown:
        lines += [f"The same pictures are this run's artifacts {shown}.", ""]
    lines += [
        "`approve` makes it the champion, after it drew a picture as it is served. `refuse` takes it off the list, "
        "with your reason. `more_samples` draws more pictures of both, compares again and asks again; each look is "
        "another chance to be misled, and the model's history adds them up."
    ]
    return "\n".join(lines)


def _meaning(judgement: Judgement) -> str:
    if judgement.decision == "PASS" and not judgement.rules:
        return "there was no champion to compare it with"
    return {
        "PASS": "the challenger is measurably better",
        "FAIL": "the challenger is not better, or breaks a limit",
        "INCONCLUSIVE": "these pictures cannot tell; more samples may",
    }[judgement.decision]


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no link, picture, table or heading comes of it."""
    return re.sub(r"([\\`*_{}\[\]()<>#|!])", r"\\\1", " ".join(text.split()))


def count_of(question: Question, asked: int | None) -> int:
    """How many pictures of each to compare next. Raises ``RecipeError`` where more pictures tell nothing."""
    before = question.judgement.budget if question.judgement else 0
    if question.champion is None:
        raise RecipeError("there is no champion to compare with, so more pictures tell nothing")
    if asked is not None and asked <= before:
        raise RecipeError(f"{asked:,} pictures of each are no more than the {before:,} of before")
    return asked or MORE * max(before, 1)
