"""The data gate as a task, with the manifest in numbers and the way to the quality report."""

from prefect.artifacts import create_markdown_artifact

from darkroom.artifacts import CheckedManifest, Manifest, QualityReport
from darkroom.errors import DataGateRefused
from darkroom.quality import check as quality
from darkroom.recipe import Recipe
from darkroom.settings import Settings

from .news import tell_refused
from .stage import Progress, open_store, stage


@stage("check")
def check(manifest: Manifest, plan: Recipe, fresh: bool = False) -> CheckedManifest:
    """The accepted rows; raises ``DataGateRefused`` when a critical expectation failed."""
    settings, store = open_store()
    shown: list[QualityReport] = []

    def show(report: QualityReport) -> None:
        shown.append(report)
        _show(settings, report)

    try:
        return quality.gate(
            manifest,
            plan,
            store,
            workers=settings.workers,
            progress=Progress("check-progress", "pictures checked"),
            fresh=fresh,
            show=show,
        )
    except DataGateRefused as error:
        tell_refused(plan.name, shown[-1].digest, str(error), _review(settings, shown[-1]))
        raise


def _review(settings: Settings, report: QualityReport) -> str:
    """The address of the reviewer's page."""
    return settings.link(report.path / quality.summary(report)["review"])


def _plain(text: str) -> str:
    """Text as Markdown shows it unread: captions and file names are hostile, and must not become links or pictures."""
    return "`" + text.replace("`", "'").replace("\n", " ") + "`" if text else ""


def _show(settings: Settings, report: QualityReport) -> None:
    found = quality.summary(report)
    lines = [
        f"# Data {'accepted' if found['passed'] else 'refused'}",
        f"[Review]({_review(settings, report)}), "
        f"[rules]({settings.link(report.path / found['docs'])}) (served by `darkroom up`)",
        "| | rows |\n|---|---:|",
        f"| in the manifest | {found['rows']:,} |",
        f"| accepted | {found['accepted']:,} |",
        f"| captions mended | {found['mended']:,} |",
        f"| in quarantine | {found['quarantined']:,} |",
        *(f"| … {kind} | {count:,} |" for kind, count in found["reasons"].items()),
        "",
        f"{found['expectations']} expectations, {len(found['findings'])} not met. Drift: {found['drift']}.",
        *(f"- **{one['severity']}**: {_plain(one['rule'])} {_plain(one['observed'])}" for one in found["findings"]),
    ]
    create_markdown_artifact("\n".join(lines), key="data-quality", description="The manifest in numbers")
