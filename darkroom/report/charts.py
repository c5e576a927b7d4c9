"""Curves and intervals as pictures."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.training.events import read

if TYPE_CHECKING:
    from darkroom.evaluation.gate import Look


DISTANCE = re.compile("validation/(fid|kid|[fk]d_.*)")  # as train.distance has it told
INK = "#808080"  # to be read on a light page and on a dark one
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


def loss_curve(events: Path, target: Path) -> Path:
    """Draw losses, distances and where the guard stepped in, as a PNG at ``target``, and return it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(dict.fromkeys(INKED, INK)):
        return _loss_curve(events, target)


def _loss_curve(events: Path, target: Path) -> Path:
    from matplotlib import pyplot

    told = [event for event in read(events) if "metrics" in event]
    styles: dict[str, dict[str, Any]] = {
        "train/loss": {"alpha": 0.7, "linewidth": 1.0},
        "validation/loss": {"marker": "o", "markersize": 3.0},
    }
    distances = list(dict.fromkeys(name for event in told for name in event["metrics"] if DISTANCE.fullmatch(name)))
    figure, axes = pyplot.subplots(figsize=(7, 3.5), dpi=110)
    beside = axes.twinx() if distances else axes  # a distance is of another size
    lines = []
    for name in (*styles, *distances):
        points = [(event["step"], event["metrics"][name]) for event in told if name in event["metrics"]]
        style = styles.get(name, {"marker": "s", "markersize": 3.0, "color": "tab:green"})
        if points:
            panel = axes if name in styles else beside
            lines += panel.plot(*zip(*points, strict=True), label=name.replace("/", " "), **style)
    for refused in (event["refused"] for event in read(events) if "refused" in event):
        axes.axvline(refused["at"], color="tab:red", linewidth=0.8, linestyle=":")  # a step that was not applied
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if distances:
        beside.set_ylabel("distance")
        beside.set_ylim(bottom=min(0.0, beside.get_ylim()[0]))
    axes.grid(alpha=0.25)
    axes.legend(handles=lines, frameon=False)
    figure.tight_layout()
    figure.savefig(target, transparent=True)
    pyplot.close(figure)
    return target


def interval(gain: float, low: float, high: float, wanted: float) -> str:
    """An interval beside zero and what was asked for, as SVG; its description is for those who cannot see it."""
    ends = [0.0, wanted, low, high]
    start, width = min(ends), (max(ends) - min(ends)) or 1.0

    def x(value: float) -> float:
        return round(8 + 184 * (value - start) / width, 1)

    words = f"gain {gain:.3g}, between {low:.3g} and {high:.3g}; asked {wanted:.3g}"
    return (
        f'<svg class="interval" viewBox="0 0 200 32" role="img" aria-label="{words}">'
        f'<line class="axis" x1="{x(0)}" y1="2" x2="{x(0)}" y2="22"/>'
        f'<text x="{x(0)}" y="31" text-anchor="middle">0</text>'
        f'<line class="asked" x1="{x(wanted)}" y1="2" x2="{x(wanted)}" y2="22"/>'
        f'<line class="reach" x1="{x(low)}" y1="12" x2="{x(high)}" y2="12"/>'
        f'<circle class="gain" cx="{x(gain)}" cy="12" r="4.5"/></svg>'
    )


def looks(found: "Sequence[Look]", wanted: float) -> str:
    """The interval at each look, from the first to the last, as SVG."""
    ends = [0.0, wanted, *(end for look in found for end in (look.low, look.high))]
    start, height = min(ends), (max(ends) - min(ends)) or 1.0

    def y(value: float) -> float:
        return round(150 - 140 * (value - start) / height, 1)

    words = "; ".join(f"{look.count} pictures: {look.low:.3g} to {look.high:.3g}" for look in found)
    parts = [f'<svg class="looks" viewBox="0 0 {120 + 90 * len(found)} 180" role="img" aria-label="{words}">']
    for value, style, name in ((0.0, "axis", "0"), (wanted, "asked", "worth it")):
        parts.append(f'<line class="{style}" x1="52" y1="{y(value)}" x2="{70 + 90 * len(found)}" y2="{y(value)}"/>')
        where = 'x="48" text-anchor="end"' if value == 0 else f'x="{74 + 90 * len(found)}"'
        parts.append(f'<text {where} y="{y(value) + 3}">{name}</text>')
    for place, look in enumerate(found):
        x = 97 + 90 * place
        parts.append(f'<line class="reach" x1="{x}" y1="{y(look.low)}" x2="{x}" y2="{y(look.high)}"/>')
        parts.append(f'<circle class="gain" cx="{x}" cy="{y(look.gain)}" r="4.5"/>')
        parts.append(f'<text x="{x}" y="174" text-anchor="middle">{look.count:,} pictures</text>')
    return "".join([*parts, "</svg>"])
