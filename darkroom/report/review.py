"""The reviewer's page: one file from which a person says yes or no to a batch of pictures.

It opens offline, in light and dark, by keyboard and on a phone. Captions, labels and file names are hostile text: all
is escaped, pictures travel inside the page, and its policy lets nothing else load and nothing run.
"""

import base64
import io
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.quality.personal import masked
from darkroom.reasons import detail_of, kind_of, stage_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

THUMB = 96  # longer side of a thumbnail; pixels
PER_KIND = 8  # examples of each kind of fault
CLUSTERS = 12
MAP_POINTS = 400  # pictures on the map
MAP_WIDTH = 960
MEASURES = {
    "width": "width, pixels",
    "height": "height, pixels",
    "sharpness": "sharpness (variance of the Laplacian)",
    "entropy": "entropy, bits",
    "brightness_p5": "dark end of the brightness, 0-255",
    "brightness_p99": "bright end of the brightness, 0-255",
    "saturation": "saturation, 0-1",
    "caption_words": "words of the caption",
}
# Measures of which one end is a fault: the examples shown as the worst.
WORST = (
    ("sharpness", True, "the least sharp"),
    ("entropy", True, "the least detailed"),
    ("brightness_p99", True, "the darkest"),
    ("brightness_p5", False, "the brightest"),
)


@dataclass(frozen=True)
class Review:
    """What the page shows.

    ``rows`` has a row a picture with ``accepted``, ``reasons`` and ``flags``; ``before`` is the accepted table of the
    last version, None for the first. ``picture`` gives the file to make a row's thumbnail from, or None, and ``kept``
    where the thumbnail of such a file is kept, so that the file is opened once. ``drift`` has a sentence a measure,
    ``advice`` a paragraph each on how many pictures are enough.
    """

    name: str
    rows: "pd.DataFrame"
    before: "pd.DataFrame | None"
    passed: bool
    findings: Sequence[Mapping[str, Any]]
    expectations: int
    docs: str
    picture: Callable[[Mapping[str, Any]], Path | None]
    kept: Callable[[Path], Path] | None = None
    drift: Sequence[Mapping[str, Any]] = ()
    changes: Mapping[str, int] = field(default_factory=dict)
    advice: Sequence[str] = ()


def write(target: Path, review: Review) -> Path:
    """Write the page to ``target`` and return it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    rows = review.rows
    accepted, refused = rows[rows["accepted"]], rows[~rows["accepted"]]
    thumbs = Thumbnails(review.picture, review.kept)
    page = environment.get_template("review.html.j2").render(
        name=review.name,
        passed=review.passed,
        docs=review.docs,
        expectations=review.expectations,
        findings=review.findings,
        counts=_counts(rows, review.changes),
        refused=by_kind(refused, "reasons", thumbs),
        flagged=by_kind(accepted, "flags", thumbs),
        clusters=_clusters(rows, thumbs),
        distributions=[
            one for name, title in MEASURES.items() if (one := _distribution(name, title, accepted, review))
        ],
        classes=_classes(accepted, review.before),
        drift=review.drift,
        compared=review.before is not None,
        map=_map(accepted, thumbs),
        worst=[(words, thumbs.tiles(_extreme(accepted, name, low))) for name, low, words in WORST if name in accepted],
        typical=thumbs.tiles(typical(accepted)),
        unusual=thumbs.tiles(typical(accepted, farthest=True)),
        advice=review.advice,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(page, "utf-8")
    temporary.replace(target)
    return target


class Thumbnails:
    """Small pictures that travel inside the page, each made once, also for later pages where they are ``kept``."""

    def __init__(
        self, picture: Callable[[Mapping[str, Any]], Path | None], kept: Callable[[Path], Path] | None = None
    ) -> None:
        self._picture, self._place = picture, kept
        self._made: dict[str, str] = {}

    def tiles(self, rows: "pd.DataFrame") -> list[dict[str, str]]:
        """What the page shows of each row."""
        return [self.tile(row) for row in _records(rows)]

    def tile(self, row: Mapping[str, Any]) -> dict[str, str]:
        """A row's picture and texts; a picture that cannot be shown is an empty address.

        Personal data in a caption that was refused for it is not spread further.
        """
        caption = row.get("caption")
        private = any(kind_of(one).startswith("personal data") for one in row.get("reasons", ()))
        return {
            "image": self.address(row),
            "path": str(row["path"]),
            "caption": _text(masked(caption) if private and isinstance(caption, str) else caption),
            "label": _text(row.get("label")),
            "size": f"{int(row['width'])}x{int(row['height'])}" if _number(row.get("width")) else "",
            "row_id": str(row["row_id"])[:12],
            "detail": "",
        }

    def address(self, row: Mapping[str, Any]) -> str:
        """A data: address of the row's thumbnail, or nothing."""
        key = str(row["row_id"])
        if key not in self._made:
            image = self.image(row)
            self._made[key] = _inline(image) if image is not None else ""
        return self._made[key]

    def image(self, row: Mapping[str, Any]) -> Any:
        """The row's thumbnail as a Pillow picture, or None where there is nothing to show."""
        from PIL import Image

        path = self._picture(row)
        if path is None or not path.is_file():
            return None
        place = self._place(path) if self._place is not None else None
        small = reduced(place) if place is not None and place.is_file() else None
        if small is None:
            small = reduced(path)
            if small is None:
                return None
            if place is not None:
                _keep(small, place)
        if max(small.size) < THUMB / 2:  # scans of a few pixels are shown as such
            scale = THUMB // max(small.size)
            small = small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST)
        return small


def reduced(path: Path) -> Any:
    """A picture's file as a Pillow picture of at most :data:`THUMB` pixels, or None where it cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (THUMB, THUMB))
            small = picture.convert("RGB")
    except Exception:  # hostile bytes: a thumbnail that cannot be made is left out
        return None
    if max(small.size) > THUMB:
        small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return small


def _keep(small: Any, place: Path) -> None:
    """Write a thumbnail without loss, so that a page is the same whoever made its thumbnails."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    small.save(temporary, format="PNG", compress_level=1)
    temporary.replace(place)


def by_kind(rows: "pd.DataFrame", column: str, thumbs: Thumbnails) -> list[dict[str, Any]]:
    """The rows of each kind of reason or flag, the most frequent first, with examples."""
    if column not in rows:
        return []
    places: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for position, texts in enumerate(rows[column]):
        for text in texts:
            places.setdefault((kind_of(text), stage_of(text)), []).append((position, detail_of(text)))
    found = []
    for (kind, stage), entries in sorted(places.items(), key=lambda item: (-len({p for p, _ in item[1]}), item[0])):
        examples = dict(reversed(entries))  # one tile a row
        shown = sorted(examples)[:PER_KIND]
        tiles = [
            {**tile, "detail": examples[position]}
            for position, tile in zip(shown, thumbs.tiles(rows.iloc[shown]), strict=True)
        ]
        found.append({"kind": kind, "stage": stage, "count": len(examples), "tiles": tiles})
    return found


def typical(rows: "pd.DataFrame", farthest: bool = False, count: int = PER_KIND) -> "pd.DataFrame":
    """The rows whose descriptors are nearest to the mean picture, or farthest from it.

    The distance is Mahalanobis' in the first principal components, so that no direction of large variance decides.
    """
    import numpy as np

    vectors, places = descriptors(rows)
    if len(places) < 2 * count:
        return rows.iloc[[] if farthest else list(range(min(count, len(rows))))]
    scores = _components(vectors, 16)
    distance = (scores / (scores.std(axis=0) + 1e-9)) ** 2
    order = np.argsort(distance.sum(axis=1), kind="stable")
    chosen = order[::-1][:count] if farthest else order[:count]
    return rows.iloc[places[chosen]]


def descriptors(rows: "pd.DataFrame", limit: int = 5000) -> "tuple[np.ndarray, np.ndarray]":
    """(float32 [N, 192] in [0, 1], the positions of the N rows that have one); a sample where there are more.

    The sample is by the rows' names, which are hashes: new rows change the choice among the old ones little.
    """
    import numpy as np

    if "descriptor" not in rows:
        return np.empty((0, 192), np.float32), np.empty(0, np.int64)
    places = np.flatnonzero(rows["descriptor"].notna().to_numpy())
    if len(places) > limit:
        names = rows["row_id"].to_numpy()[places]
        places = np.sort(places[np.argsort(names, kind="stable")[:limit]])
    content = bytes.fromhex("".join(rows["descriptor"].iloc[places]))
    return np.frombuffer(content, np.uint8).reshape(-1, 192).astype(np.float32) / 255, places


def _components(vectors: "np.ndarray", count: int) -> "np.ndarray":
    """The first principal components [N, count] of [N, D]; signs are fixed, so that a map stays as it was."""
    import numpy as np

    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, np.argsort(values)[::-1][:count]]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return np.asarray(centred @ (directions * signs))


def _map(rows: "pd.DataFrame", thumbs: Thumbnails) -> dict[str, Any] | None:
    """All accepted pictures, or a sample, laid out so that pictures alike lie together, as one picture."""
    from PIL import Image

    vectors, places = descriptors(rows, MAP_POINTS)
    if len(places) < 10:
        return None
    columns, lines = grid(len(places))
    width, height = MAP_WIDTH, int(MAP_WIDTH * lines / columns)
    side = width // columns
    sheet = Image.new("RGB", (width, height), (128, 128, 128))
    for row, (column, line) in zip(_records(rows.iloc[places]), layout(vectors), strict=True):
        image = thumbs.image(row)
        if image is not None:
            image.thumbnail((side - 2, side - 2))
            sheet.paste(image, (column * width // columns + 1, line * height // lines + 1))
    return {"image": _inline(sheet, quality=80), "shown": len(places), "all": len(rows)}


def grid(count: int) -> tuple[int, int]:
    """(columns, lines) of a sheet, half as wide again as high, with room for so many pictures."""
    columns = math.ceil(math.sqrt(count * 1.5))
    return columns, math.ceil(count / columns)


def layout(vectors: "np.ndarray") -> "np.ndarray":
    """[N, D] -> the place (column, line) of each on a grid, int [N, 2], alike ones near to each other.

    The two first principal components, each spread evenly, are brought to the places at the least sum of squared
    distances (a linear assignment), so that no picture hides another.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    columns, lines = grid(len(vectors))
    scores = _components(vectors, 2)
    ranks = scores.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    points = (ranks + 0.5) / len(vectors)  # [N, 2] in (0, 1)
    places = np.stack(np.meshgrid(np.arange(columns), np.arange(lines)), axis=-1).reshape(-1, 2)
    centres = (places + 0.5) / (columns, lines)
    cost = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    _, chosen = linear_sum_assignment(cost)
    return np.asarray(places[chosen])


def _clusters(rows: "pd.DataFrame", thumbs: Thumbnails) -> dict[str, Any]:
    """Clusters of more than one picture, the largest first, the kept copy first in each."""
    named = rows[rows["duplicate_cluster"].notna()]
    sizes = named["duplicate_cluster"].value_counts()
    names = sorted(sizes[sizes > 1].index, key=lambda name: (-sizes[name], name))
    shown = []
    members = named[named["duplicate_cluster"].isin(names[:CLUSTERS])]
    for name in names[:CLUSTERS]:
        group = members[members["duplicate_cluster"] == name].sort_values(
            ["accepted", "path"], ascending=[False, True], kind="stable"
        )
        first = group.head(PER_KIND)
        tiles = [
            {**tile, "kept": "kept" if kept else "", "detail": next(iter(_duplicate_words(reasons)), "")}
            for tile, kept, reasons in zip(thumbs.tiles(first), first["accepted"], first["reasons"], strict=True)
        ]
        shown.append({"tiles": tiles, "more": len(group) - len(first)})
    return {"count": len(names), "shown": shown}


def _duplicate_words(reasons: Iterable[str]) -> list[str]:
    return [f"{kind_of(one)} {detail_of(one)}" for one in reasons if "duplicate" in kind_of(one)]


def _distribution(name: str, title: str, rows: "pd.DataFrame", review: Review) -> dict[str, Any] | None:
    """A histogram of shares, now and before, as rectangles and a line in a box of 240 x 70."""
    import numpy as np

    if name not in rows:
        return None
    now = rows[name].dropna().to_numpy(dtype=float)
    old = review.before
    then = old[name].dropna().to_numpy(dtype=float) if old is not None and name in old else np.empty(0)
    both = np.concatenate([now, then])
    if not len(now):
        return None
    low, high = np.quantile(both, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, 25)
    shares = [np.histogram(part.clip(edges[0], edges[-1]), edges)[0] / max(1, len(part)) for part in (now, then)]
    top = max(share.max() for share in shares) or 1.0
    bars = [
        (index * 10, round(70 - 70 * share / top, 1), round(70 * share / top, 1))
        for index, share in enumerate(shares[0])
    ]
    line = " ".join(
        f"{index * 10},{70 - 70 * s / top:.1f} {index * 10 + 10},{70 - 70 * s / top:.1f}"
        for index, s in enumerate(shares[1])
    )
    words = f"median {_short(np.median(now))}, from {_short(now.min())} to {_short(now.max())}"
    if len(then):
        words += f"; before: median {_short(np.median(then))}"
    return {"title": title, "bars": bars, "line": line if len(then) else "", "words": words,
            "low": _short(low), "high": _short(high)}  # fmt: skip


def _classes(rows: "pd.DataFrame", before: "pd.DataFrame | None") -> list[dict[str, Any]]:
    """How many pictures each label has, now and before; at most 40 labels, the most frequent first."""
    labels = [label for label in rows["label"] if isinstance(label, str)]
    old = Counter(label for label in before["label"] if isinstance(label, str)) if before is not None else Counter()
    counted = Counter(labels).most_common(40)
    top = max((count for _, count in counted), default=1)
    return [
        {"label": label, "count": count, "before": old.get(label, 0), "width": round(100 * count / top, 1)}
        for label, count in counted
    ]


def _counts(rows: "pd.DataFrame", changes: Mapping[str, int]) -> list[tuple[str, str]]:
    accepted = rows[rows["accepted"]]
    sides = Counter(side for side in accepted["split"] if isinstance(side, str))
    uncaptioned = sum(not isinstance(caption, str) or not caption for caption in accepted["caption"])
    found = [
        ("rows", len(rows)),
        ("accepted", len(accepted)),
        ("in quarantine", len(rows) - len(accepted)),
        ("with remarks", int(accepted["flags"].map(len).gt(0).sum()) if "flags" in accepted else 0),
        ("captions mended", int(accepted["mended"].map(len).gt(0).sum()) if "mended" in accepted else 0),
        ("without a caption", uncaptioned),
        ("to train on", sides["train"]),
        ("to validate", sides["validation"]),
    ]
    return [(name, f"{count:,}") for name, count in [*found, *changes.items()]]


def _extreme(rows: "pd.DataFrame", name: str, low: bool) -> "pd.DataFrame":
    ordered = rows[rows[name].notna()].sort_values([name, "row_id"], ascending=[low, True], kind="stable")
    return ordered.head(PER_KIND)


def _records(rows: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _inline(image: Any, quality: int = 82) -> str:
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _text(value: object, limit: int = 160) -> str:
    if not isinstance(value, str):
        return ""
    return value if len(value) <= limit else f"{value[:limit]}…"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
