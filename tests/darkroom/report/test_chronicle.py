"""The page of a model's history: what it counts, that hostile text stays text, and that it opens with nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from darkroom.history import Against, Entry, History, Judged, Move
from darkroom.registry import Version
from darkroom.report import chronicle
from darkroom.settings import Settings
from darkroom.stability import trained

HOSTILE = '<script>alert("1")</script> & <img src=x onerror=alert(2)>'
DIGEST = "ab" * 32


def version(number: int, *aliases: str) -> Version:
    tags = {"darkroom.verdict": DIGEST, "darkroom.run": f"run{number}"}
    return Version("digits", str(number), f"run{number}", tags, "", aliases, 1_790_000_000_000 + number * 86_400_000)


def judged(gain: float, against: int, decision: str = "PASS", alpha: float = 0.05, reasons: str = "better") -> Judged:
    low, high, measure = gain - 0.1, gain + 0.1, "fd_clip_digits"
    numbers = (gain, low, high, 0.05, Against(str(against), "c" * 64))
    return Judged(f"2026-11-0{against}T00:00:00+00:00", decision, reasons, measure, alpha, 512, *numbers)


@pytest.fixture
def found() -> History:
    """Five versions: the gate promotes 1 and 3, a person 4; 2 is worse, 5 waits."""
    first = Judged("2026-11-01T00:00:00+00:00", "PASS", "it is the first version", "fd_clip_digits")
    moves = {
        1: Move(1, "1", "gate", "2026-11-01T10:00:00+00:00", "it is the first version"),
        3: Move(2, "3", "gate", "2026-11-03T10:00:00+00:00", "better", Against("1", "a" * 64), DIGEST),
        4: Move(3, "4", HOSTILE, "2026-11-04T10:00:00+00:00", HOSTILE, Against("3", "b" * 64)),
    }
    verdicts = {
        1: (first,),
        2: (judged(-0.4, 1, "FAIL"),),
        3: (judged(0.3, 1),),
        4: (judged(0.05, 3, "INCONCLUSIVE", reasons=HOSTILE),),
        5: (judged(0.02, 4, "INCONCLUSIVE"),),
    }
    aliases = {4: ("champion",), 5: ("challenger",)}
    entries = [
        Entry(
            version(number, *aliases.get(number, ())),
            {"fd_clip_digits": 2.0 / number, "clip_score_digits": 30.0 + number, "nearest_ratio": 1.0},
            verdicts[number],
            (moves[number],) if number in moves else (),
        )
        for number in range(5, 0, -1)
    ]
    return History("digits", tuple(entries))


@pytest.fixture
def page(found: History, tmp_path: Path) -> str:
    return chronicle.write(tmp_path / "reports", found, Settings(home=tmp_path)).read_text("utf-8")


class Tags(HTMLParser):
    """Every tag with its attributes, and the plain text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_text_stays_text(page: str) -> None:
    seen = Tags(page)
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in seen.tags}
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in seen.text


def test_the_page_needs_nothing_else(page: str) -> None:
    seen = Tags(page)
    policy = next(
        attributes["content"] for tag, attributes in seen.tags if tag == "meta" and "http-equiv" in attributes
    )
    assert "default-src 'none'" in str(policy)
    assert "script-src" not in str(policy)
    assert not [attributes for _, attributes in seen.tags if "src" in attributes]
    assert "url(" not in page
    assert "@import" not in page
    assert {tag for tag, _ in seen.tags}.isdisjoint({"link", "base", "form"})


def test_every_version_and_move_is_there(page: str, found: History) -> None:
    links = {attributes["href"] for tag, attributes in Tags(page).tags if tag == "a"}
    assert {f"http://127.0.0.1:5000/#/models/digits/versions/{number}" for number in range(1, 6)} <= links
    text = re.sub(r"\s+", " ", Tags(page).text)
    assert "version 4 is the champion" in text
    assert "Version 3 instead of version 1, 2026-11-03 10:00 by the gate." in text
    assert "Version 1, as the first champion" in text
    assert text.index("Version 4 instead") < text.index("Version 3 instead")


def test_every_comparison_is_counted_and_none_else(found: History) -> None:
    assert len(found.comparisons) == 4, "the first version was compared with none"
    assert found.false_promotions == pytest.approx(4 * 0.05)
    words = " ".join(chronicle.chances(found))
    assert "4 times" in words
    assert "4 × 0.05 = 0.2 wrong promotions" in words
    older = found.entries[1]
    stricter = replace(older, judged=(replace(older.judged[0], alpha=0.01),))
    mixed = History("digits", (found.entries[0], stricter, *found.entries[2:]))
    assert mixed.false_promotions == pytest.approx(0.16)
    assert "1% to 5%" in " ".join(chronicle.chances(mixed))


def test_a_model_that_was_never_compared_expects_nothing(found: History, tmp_path: Path) -> None:
    alone = History("digits", found.entries[-1:])
    assert alone.false_promotions == 0
    assert "No version was compared" in chronicle.chances(alone)[0]
    assert chronicle.gains(alone) is None
    assert "No version was compared" in chronicle.write(tmp_path, alone, Settings(home=tmp_path)).read_text("utf-8")


def test_intervals_lie_in_the_chart_and_in_order(found: History) -> None:
    drawn = chronicle.gains(found)
    assert drawn is not None
    assert [row["version"] for row in drawn["rows"]] == ["2", "3", "4", "5"]
    for row in drawn["rows"]:
        assert 0 <= row["low"] < row["gain"] < row["high"] <= chronicle.WIDTH
    worse, better = drawn["rows"][:2]
    assert worse["high"] < worse["zero"] < better["low"], "left of the line is worse, right of it better"
    assert len({row["zero"] for row in drawn["rows"]}) == 1


class Artifacts:
    """A registry that has artifacts alone."""

    def __init__(self, **content: bytes) -> None:
        self.content = content
        self.asked: list[str] = []

    def artifact(self, run_id: str, path: str) -> bytes | None:
        self.asked.append(path)
        return self.content.get(run_id)


def test_a_page_that_is_gone_comes_back_from_mlflow(tmp_path: Path) -> None:
    registry = Artifacts(run3=b"<p>the page</p>")
    place = chronicle.page_of(registry, version(3), tmp_path / "reports")
    assert place == tmp_path / "reports" / f"digits-{DIGEST[:12]}.html"
    assert place.read_bytes() == b"<p>the page</p>"
    place.write_bytes(b"newer")
    assert chronicle.page_of(registry, version(3), tmp_path / "reports") == place
    assert place.read_bytes() == b"newer", "one that is there stays"
    assert registry.asked == ["report.html"]


def test_a_page_that_nobody_has_and_a_digest_that_is_none(tmp_path: Path) -> None:
    assert chronicle.page_of(Artifacts(), version(3), tmp_path) is None
    wrong = replace(version(3), tags={"darkroom.verdict": "../../elsewhere", "darkroom.run": "run3"})
    assert chronicle.page_of(Artifacts(run3=b"x"), wrong, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


class Pages:
    """A registry that keeps what it is told."""

    def __init__(self, found: History) -> None:
        self.found = found
        self.kept: dict[str, bytes] = {}
        self.text = ""

    def log_results(self, run_id: str, model_id: None, metrics: dict[str, float], artifacts: dict[str, Path]) -> None:
        self.kept |= {f"{run_id}/{name}": path.read_bytes() for name, path in artifacts.items()}

    def describe(self, model: str, mark: str, words: str) -> None:
        assert words.startswith(mark)
        self.text = words


def test_mlflow_is_told_the_history(found: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Pages(found)
    monkeypatch.setattr(chronicle.history, "read", lambda _registry, _model: found)
    place = chronicle.tell(registry, "digits", Settings(home=tmp_path))
    assert registry.kept == {"run5/history.html": place.read_bytes()}
    lines = registry.text.splitlines()
    table = [line for line in lines if re.match(r"\| \d", line)]
    assert [line.split(" | ")[0] for line in table] == [f"| {number}" for number in (5, 4, 3, 2, 1)]
    assert "at most 0.2 wrong promotions" in registry.text
    third = table[2]
    assert "PASS" in third
    assert "+0.3 \\(+0.2 to +0.4\\) over version 1" in third
    assert "2026-11-03 10:00 by the gate: better" in third
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 8 for line in table), "reasons do not break the table"
    assert not re.search(r"(?<!\\)<", registry.text), "nor are they markup"


def test_the_short_history_fits_into_mlflow(found: History) -> None:
    newest = found.entries[0]
    many = History("digits", tuple(replace(newest, version=version(number)) for number in range(200, 0, -1)))
    text = chronicle.in_short(many)
    assert len(text) <= chronicle.TEXT
    shown = len(re.findall(r"^\| \d", text, re.MULTILINE))
    assert shown > 10
    assert text.endswith(f"and {200 - shown} older ones.")


def test_how_steady_it_is_stands_on_the_page(found: History, tmp_path: Path) -> None:
    made = [
        replace(entry, made=trained({"seed": str(place)}, "s", entry.measures))
        for place, entry in enumerate(found.entries)
    ]
    page = chronicle.write(tmp_path, History("digits", tuple(made)), Settings(home=tmp_path)).read_text("utf-8")
    text = re.sub(r"\s+", " ", Tags(page).text)
    assert "clip_score_digits" in text
    assert "33 ± 1.6 (5)" in text
