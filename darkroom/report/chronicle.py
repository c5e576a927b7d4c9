"""The page of a model's history: every version, what it gained over the champion of its time, and who promoted it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom import history, links
from darkroom._registry import cut
from darkroom.history import Entry, History, Judged, Move
from darkroom.registry import Registry, Version
from darkroom.settings import Settings
from darkroom.stability import rows as steady_rows

from .page import meaning

PAGE = "history.html"
MARK = "### History"
TEXT = 4000  # characters of the short form: MLflow's text of a model has 5,000, and the recipe's own comes first
WORDS = 120  # of a reason in the short form
SHOWN = 60  # versions in a chart; the table has all
WIDTH, HEIGHT = 1000.0, 100.0  # of the charts' own coordinates, which a browser stretches


@dataclass(frozen=True)
class Curve:
    """A measure over the versions: ``line`` and ``dots`` in the chart's coordinates."""

    name: str
    meaning: str
    lowest: str
    highest: str
    line: str
    dots: list[dict[str, Any]]
    words: str


def page_of(registry: Registry, version: Version, folder: Path) -> Path | None:
    """The page of a version's run; one that is gone is taken from MLflow again. None where neither has it."""
    digest = version.tags.get("darkroom.verdict", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        return None
    target = folder / f"{_plain(version.model)}-{digest[:12]}.html"
    if not target.is_file():
        content = registry.artifact(version.tags.get(history.RUN) or version.run_id, "report.html")
        if content is None:
            return None
        _put(target, links.unbased(content.decode("utf-8")).encode())
    return target


def name_of(model: str) -> str:
    """The file of a model's history."""
    return f"{_plain(model)}-history.html"


def write(folder: Path, found: History, settings: Settings) -> Path:
    """Write the page of a model's history and return it. Everything shown is escaped: reasons are hostile text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    champion = next((one for one in found.entries if "champion" in one.version.aliases), None)
    curves = _curves(found)
    page = environment.get_template("chronicle.html.j2").render(
        model=found.model,
        champion=champion.version.version if champion else None,
        rows=[_row(entry, folder, settings) for entry in found.entries],
        gains=gains(found),
        first=curves[0] if curves else None,
        curves=curves[1:],
        moves=[_told(move) for move in reversed(found.moves)],
        chances=chances(found),
        steady=steady_rows(found.made),
    )
    target = folder / name_of(found.model)
    _put(target, page.encode())
    return target


def tell(registry: Registry, model: str, settings: Settings) -> Path:
    """Write the history's page, and into MLflow: whole with the newest version's run, in short on the model's page."""
    found = history.read(registry, model)
    page = write(settings.root / "reports", found, settings)
    newest = found.entries[0].version
    if run_id := newest.tags.get(history.RUN) or newest.run_id:
        registry.log_results(run_id, None, {}, {PAGE: page})
    registry.describe(model, MARK, in_short(found))
    return page


def in_short(found: History) -> str:
    """The history as Markdown, as much of it as MLflow's text of a model holds; nothing in it is markup of others."""
    count, each = len(found.comparisons), f"{found.false_promotions:.3g}"
    compared = (
        f"{count} comparison{'' if count == 1 else 's'} with a champion; had none of these versions been better, at "
        f"most {each} wrong promotions were to be expected"
    )
    lines = [
        MARK,
        "",
        f"{compared if count else 'No version was compared with a champion yet'}. All of it: `{PAGE}` among the "
        "artifacts of the newest version's run.",
        "",
        "| version | registered | verdict | measure | value | gain, and where it truly lies | champion: by whom, why |",
        "|---:|---|---|---|---:|---|---|",
    ]
    room = TEXT - sum(len(line) + 1 for line in lines)
    for place, entry in enumerate(found.entries):
        line = _line(entry)
        older = f"\nand {len(found.entries) - place} older ones."
        if room - len(line) - 1 < len(older):
            return "\n".join([*lines, older.strip("\n") if place == 0 else older])
        lines.append(line)
        room -= len(line) + 1
    return "\n".join(lines)


def _line(entry: Entry) -> str:
    last = entry.judged[-1] if entry.judged else None
    moves = "; ".join(f"{move.when[:16].replace('T', ' ')} by {_told(move)['who']}: {move.why}" for move in entry.moves)
    gain = ""
    if last and last.against:
        low, seen, high = _numbers(last)
        gain = f"{seen:+.3g} ({low:+.3g} to {high:+.3g}) over version {last.against.version}"
    cells = [
        entry.version.version,
        history.when(entry.version)[:16].replace("T", " "),
        last.decision if last else "",
        last.measure if last else "",
        _number(entry.measures, last.measure if last else ""),
        gain,
        cut(moves, WORDS),
    ]
    return f"| {' | '.join(_harmless(cell) for cell in cells)} |"


def _harmless(text: str) -> str:
    """A text as a cell of a table in Markdown: in one line, and neither markup nor a link."""
    return re.sub(r"([\\`*_{}\[\]()<>#!|~&])", r"\\\1", " ".join(text.split()))


def chances(found: History) -> list[str]:
    """How many wrong promotions are to be expected, in sentences that take nothing for granted."""
    alphas = [one.alpha for one in found.comparisons]
    if not alphas:
        return [
            "No version was compared with a champion yet: the first version is promoted when it meets the recipe's "
            "limits. From the second on, each comparison can go wrong by chance, and this page counts how often that "
            "is to be expected."
        ]
    times = "once" if len(alphas) == 1 else f"{len(alphas)} times"
    same = f"{len(alphas)} × {alphas[0]:g}" if len(set(alphas)) == 1 else " + ".join(f"{one:g}" for one in alphas)
    each = f"{alphas[0]:.0%}" if len(set(alphas)) == 1 else f"{min(alphas):.0%} to {max(alphas):.0%}"
    return [
        f"A version was compared with the champion {times}. Pictures differ by chance, so each time a version that is "
        f"in truth no better could still pass, with a chance of at most {each} (the recipe's gate.alpha).",
        f"Had none of these versions been better, {same} = {found.false_promotions:.3g} wrong promotions were to be "
        "expected at most over this model's whole history. The more often versions are compared, the more of them pass "
        "by luck alone: fewer comparisons, or a smaller gate.alpha, keep this number low.",
    ]


def gains(found: History) -> dict[str, Any] | None:
    """The intervals of the gains in the measure that decided last, on one scale that holds them all, oldest first."""
    told = [(entry, one) for entry in reversed(found.entries) for one in entry.judged if one.against is not None]
    told = sorted(told, key=lambda pair: pair[1].when)
    if not told:
        return None
    measure = told[-1][1].measure
    rows = [(entry, one, _numbers(one)) for entry, one in told if one.measure == measure][-SHOWN:]
    every = [value for _, _, values in rows for value in values] + [0.0]
    low, high = min(every), max(every)
    pad = 0.05 * (high - low or 1.0)

    def x(value: float) -> float:
        return round(WIDTH * (value - low + pad) / (high - low + 2 * pad), 1)

    return {
        "measure": measure,
        "others": sum(one.measure != measure for _, one in told),
        "rows": [
            {
                "version": entry.version.version,
                "against": one.against.version if one.against else "",
                "decision": one.decision,
                "zero": x(0.0),
                "gain": x(values[1]),
                "low": x(values[0]),
                "high": x(values[2]),
                "wanted": None if one.wanted is None else x(one.wanted),
                "words": f"{values[1]:+.2g} ({values[0]:+.2g} to {values[2]:+.2g})",
            }
            for entry, one, values in rows
        ],
    }


def _numbers(one: Judged) -> tuple[float, float, float]:
    assert one.low is not None, "a comparison has all three"
    assert one.gain is not None
    assert one.high is not None
    return one.low, one.gain, one.high


def _curves(found: History) -> list[Curve]:
    """A chart of each measure that two or more versions have, the one that decides first."""
    deciding = [one.measure for entry in found.entries for one in entry.judged]
    entries = list(reversed(found.entries))[-SHOWN:]
    names = sorted(
        {name for entry in entries for name in entry.measures}, key=lambda name: (name not in deciding, name)
    )
    return [curve for name in names if (curve := _curve(name, entries)) is not None]


def _curve(name: str, entries: Sequence[Entry]) -> Curve | None:
    points = [(place, entry, entry.measures[name]) for place, entry in enumerate(entries) if name in entry.measures]
    if len(points) < 2:
        return None
    values = [value for _, _, value in points]
    low, high = min(values), max(values)
    dots = []
    for place, entry, value in points:
        x = WIDTH * (place + 0.5) / len(entries)
        y = HEIGHT * (0.9 - 0.8 * ((value - low) / (high - low) if high > low else 0.5))
        promoted = bool(entry.moves)
        words = f"version {entry.version.version}: {value:.4g}{', promoted' if promoted else ''}"
        dots.append({"x": round(x, 1), "y": round(y, 1), "promoted": promoted, "words": words})
    line = " ".join(f"{dot['x']},{dot['y']}" for dot in dots)
    words = "; ".join(str(dot["words"]) for dot in dots[-12:])
    return Curve(name, meaning(name), f"{low:.4g}", f"{high:.4g}", line, dots, words)


def _row(entry: Entry, folder: Path, settings: Settings) -> dict[str, Any]:
    version, last = entry.version, entry.judged[-1] if entry.judged else None
    page = f"{_plain(version.model)}-{version.tags.get('darkroom.verdict', '')[:12]}.html"
    return {
        "version": version.version,
        "aliases": sorted(version.aliases),
        "registered": history.when(version),
        "decision": last.decision if last else "",
        "reasons": last.reasons if last else version.description,
        "measure": last.measure if last else "",
        "value": _number(entry.measures, last.measure if last else ""),
        "gain": f"{last.gain:+.3g}" if last and last.gain is not None else "",
        "interval": "{:+.3g} to {:+.3g}".format(*_numbers(last)[::2]) if last and last.against else "",
        "against": last.against.version if last and last.against else "",
        "moves": [_told(move) for move in entry.moves],
        "refusals": [{"who": one.who, "when": one.when, "why": one.why} for one in entry.refusals],
        "measures": [(name, f"{value:.5g}") for name, value in entry.measures.items()],
        "mlflow": links.version(settings, version.model, version.version),
        "page": page if (folder / page).is_file() else None,
    }


def _told(move: Move) -> dict[str, str]:
    who = "the gate" if move.who == history.GATE else move.who
    against = f" instead of version {move.against.version}" if move.against else ", as the first champion"
    how = "Rolled back to" if move.undoes else "Promoted"
    return {"version": move.version, "how": how, "who": who, "when": move.when, "why": move.why, "against": against}


def _number(measures: Mapping[str, float], name: str) -> str:
    return f"{measures[name]:.4g}" if name in measures else ""


def _plain(name: str) -> str:
    """A model's name as a file may be called; those that darkroom registers are so already."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _put(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(target)
