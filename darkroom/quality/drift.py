"""Drift: is a new batch of pictures like the last accepted one? Numbers, categories and the pictures themselves.

Each measure has an effect (how far apart) and a p-value (could it be chance); it has drifted only where both say so, as
in small batches chance alone makes large effects, and in large ones trifles are certain.

- Numbers: population stability index (PSI) and Jensen-Shannon divergence over the deciles of the old batch;
  Kolmogorov and Smirnov's two-sample test.
- Categories: the same indices over the values; Pearson's chi-square, with its p-value by permutation, so that rare
  values need no pooling.
- Pictures: the maximum mean discrepancy (A. Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012, eq. 5) between
  their descriptors or given embeddings, with its p-value by permutation. The effect is how well its witness function
  tells held-out pictures of the two batches apart (a classifier two-sample test as of D. Lopez-Paz and M. Oquab,
  Revisiting Classifier Two-Sample Tests, 2017): the area under its ROC curve, 0.5 being guesswork.

PSI is the symmetric form of Kullback and Leibler's divergence: ``KL(new|old) + KL(old|new)``, in nats. Custom has it
that below 0.1 nothing happened and above 0.25 much did. The p-values are Holm's (1979) over all measures of a
comparison, so that without drift about one comparison in 20 at most finds any.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from darkroom.randomness import seed_of
from darkroom.store import write_json

from .docs import shorten
from .licences import normalise

if TYPE_CHECKING:
    import pandas as pd

Level = Literal["none", "some", "much"]
Kind = Literal["number", "category", "picture"]

LEVELS: tuple[Level, ...] = ("none", "some", "much")
NOTHING = "nothing to compare with"
TOO_FEW = "too few pictures to compare"
FILE = "drift.json"

NUMBERS = (
    "width", "height", "bytes", "sharpness", "entropy", "brightness_p5", "brightness_p99", "saturation", "border",
    "alpha", "caption_words", "caption_tokens",
)  # fmt: skip
CATEGORIES = ("label", "format", "mode", "licence", "caption_source", "caption_language")

COLUMNS = ("id", *NUMBERS, *CATEGORIES, "descriptor")  # all that a comparison reads of a table

SIGNIFICANT = 0.05  # of Holm's p-values
PSI_LIMITS = (0.1, 0.25)
AUC_LIMITS = (0.55, 0.65)
EPSILON = 1e-4  # the least share of a bin: an empty one would make the indices infinite
BINS = 10
VALUES = 50  # values of a category with a bin of their own, the commonest first; the others share one
SAMPLE = 2000  # rows a side for the tests of numbers and categories
PICTURES = 1000  # rows a side for the test of pictures, whose cost grows with their square
PERMUTATIONS = 999
FEWEST = 20  # known values a side; with fewer no test says anything


@dataclass(frozen=True)
class Measure:
    """One measure of two batches."""

    measure: str
    """A column, or "pictures"."""
    kind: Kind
    psi: float | None
    """Population stability index; None for pictures."""
    kl: float | None
    """Kullback and Leibler's divergence of the new batch from the old, in nats; None for pictures."""
    js: float | None
    """Jensen-Shannon divergence in bits, 0 to 1; None for pictures."""
    auc: float | None
    """Pictures alone: how often the new one of a new and an old picture is told, 0.5 to 1."""
    statistic: float | None
    """Kolmogorov and Smirnov's distance, chi-square, or the squared maximum mean discrepancy."""
    p_value: float | None
    """After Holm's correction; None where there was too little to test."""
    level: Level
    sentence: str


@dataclass(frozen=True)
class Drift:
    """What a comparison found."""

    new: int
    """Rows of the new batch."""
    old: int | None
    """Rows of the old one; None where there is none."""
    level: Level
    """The highest of the measures."""
    measures: tuple[Measure, ...]
    """In the order numbers, categories, pictures."""

    def table(self) -> "pd.DataFrame":
        """A row a measure, for ``expect_drift_at_most``; empty, with its columns, where nothing was compared."""
        import pandas as pd

        names = ["measure", "kind", "psi", "kl", "js", "auc", "statistic", "p_value", "level", "sentence"]
        return pd.DataFrame([asdict(one) for one in self.measures], columns=names)

    def write(self, path: Path) -> None:
        """Write JSON: ``{"version": 1, "new", "old", "level", "note", "measures": [{...}]}``.

        Each measure has the fields of :class:`Measure`; numbers are rounded to six significant digits. ``note`` is
        "nothing to compare with" where there was no old batch, "too few pictures to compare", or empty.
        """
        measures = [{key: _rounded(value) for key, value in asdict(one).items()} for one in self.measures]
        note = NOTHING if self.old is None else "" if self.measures else TOO_FEW
        content = {"version": 1, "new": self.new, "old": self.old, "level": self.level, "note": note}
        write_json(path, {**content, "measures": measures})


def fresh(new: "pd.DataFrame", old: "pd.DataFrame | None") -> "pd.DataFrame":
    """The rows of ``new`` whose picture (``id``) the old batch has not; all rows where there is no old batch.

    A version of the data mostly repeats the one before; compared as a whole, its few new pictures would hide.
    """
    return new if old is None else new[~new["id"].isin(old["id"])]


def compare(
    new: "pd.DataFrame",
    old: "pd.DataFrame | None",
    seed: int = 0,
    embeddings: tuple[np.ndarray, np.ndarray] | None = None,
) -> Drift:
    """Compare two tables of accepted pictures with the columns of checked.parquet; columns that one lacks are left out.

    ``embeddings``: one row of features for each row of ``new`` and of ``old``, shapes [rows, d]; without them the
    column ``descriptor`` (hex of 8x8 RGB) is used. Rows are sampled by their ``id`` and the seed, so that the order of
    the tables does not matter. Takes seconds at a million rows.
    """
    if old is None or not len(old):
        return Drift(len(new), None, "none", ())
    samples = _sample(new, seed), _sample(old, seed)
    common = set(new.columns) & set(old.columns)
    found = [
        *(_number(name, new, old, samples) for name in NUMBERS if name in common),
        *(_category(name, new, old, samples, seed) for name in CATEGORIES if name in common),
        _pictures(new, old, samples, embeddings, seed),
    ]
    measures = _judged([one for one in found if one is not None])
    return Drift(len(new), len(old), max((one.level for one in measures), key=LEVELS.index, default="none"), measures)


@dataclass(frozen=True)
class _Raw:
    """A measure before Holm's correction."""

    measure: str
    kind: Kind
    psi: float | None
    kl: float | None
    js: float | None
    auc: float | None
    statistic: float
    p_value: float
    words: str


def indices(new: np.ndarray, old: np.ndarray) -> tuple[float, float, float]:
    """(PSI and KL(new|old) in nats, Jensen-Shannon divergence in bits) of two histograms over the same bins.

    Shares below :data:`EPSILON` are raised to it for the first two, which are infinite otherwise.
    """
    p, q = new / new.sum(), old / old.sum()
    floored_p, floored_q = np.maximum(p, EPSILON), np.maximum(q, EPSILON)
    logs = np.log(floored_p / floored_q)
    psi, kl = float(((floored_p - floored_q) * logs).sum()), float((floored_p * logs).sum())
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(one > 0, one * np.log2(one / middle), 0.0).sum() for one in (p, q)]
    return psi, max(0.0, kl), float(max(0.0, sum(terms) / 2))


def edges(old: np.ndarray) -> np.ndarray:
    """The inner edges of the bins of a number: deciles of the old batch.

    A value that is several deciles at once (all pictures are 512 wide) has a bin of its own, so that a change to either
    side of it is seen.
    """
    deciles, times = np.unique(np.quantile(old, np.arange(1, BINS) / BINS, method="lower"), return_counts=True)
    heavy = deciles[(times > 1) | (len(deciles) == 1)]
    return np.unique(np.concatenate([deciles, np.nextafter(heavy, np.inf)]))


def holm(p_values: np.ndarray) -> np.ndarray:
    """S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979: adjusted p-values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result


def discrepancy(new: np.ndarray, old: np.ndarray, seed: int) -> tuple[float, float, float]:
    """(squared MMD, p-value by permutation, area under the curve of the witness) of features [n, d] and [m, d].

    The kernel is exp(-|x - y|² / median), the median being that of all squared distances.
    """
    features = np.concatenate([new, old]).astype(np.float32)
    features -= features.mean(axis=0)
    norms = (features**2).sum(axis=1)
    distances = np.maximum(norms[:, None] + norms[None, :] - 2 * features @ features.T, 0)
    scale = float(np.median(distances[~np.eye(len(distances), dtype=bool)])) or float(distances.mean()) or 1.0
    kernel = np.exp(-distances / scale)
    weights = np.concatenate([np.full(len(new), 1 / len(new)), np.full(len(old), -1 / len(old))]).astype(np.float32)
    random = np.random.default_rng(seed_of(seed, "drift", "pictures"))
    shuffled = random.permuted(np.tile(weights, (PERMUTATIONS, 1)), axis=1)
    by_chance = ((shuffled @ kernel) * shuffled).sum(axis=1)  # [permutations]
    observed = float(weights @ kernel @ weights)
    p_value = (1 + int((by_chance >= observed - 1e-7).sum())) / (1 + PERMUTATIONS)
    return observed, p_value, _held_out_auc(kernel, weights)


def _held_out_auc(kernel: np.ndarray, weights: np.ndarray) -> float:
    """Every other picture makes the witness function, the rest are told apart by it."""
    from scipy.stats import rankdata

    side = weights > 0
    learning = np.arange(len(weights)) % 2 == 0
    witness = [kernel[~learning][:, learning & one].mean(axis=1) for one in (side, ~side)]
    ranks, is_new = rankdata(witness[0] - witness[1]), side[~learning]
    ahead = ranks[is_new].sum() - is_new.sum() * (is_new.sum() + 1) / 2
    return max(0.5, float(ahead / (is_new.sum() * (~is_new).sum())))


def _sample(table: "pd.DataFrame", seed: int) -> np.ndarray:
    """The places of up to :data:`SAMPLE` rows, by the hash of their id: another order gives the same rows."""
    import pandas as pd

    names = table["id"].fillna("").to_numpy(dtype=object)
    hashes = pd.util.hash_array(names, hash_key=f"{seed_of(seed, 'drift') % 10**16:016d}", categorize=False)
    if len(hashes) > SAMPLE:
        chosen = np.argpartition(hashes, SAMPLE)[:SAMPLE]
        return chosen[np.argsort(hashes[chosen], kind="stable")]
    return np.argsort(hashes, kind="stable")


def _number(name: str, new: "pd.DataFrame", old: "pd.DataFrame", samples: tuple[np.ndarray, np.ndarray]) -> _Raw | None:
    from scipy.stats import ks_2samp

    sides = [_finite(table[name]) for table in (new, old)]
    drawn = [_finite(table[name].iloc[rows]) for table, rows in zip((new, old), samples, strict=True)]
    if min(map(len, drawn)) < FEWEST:
        return None
    inner = edges(sides[1])
    counts = [np.bincount(np.searchsorted(inner, side, side="right"), minlength=len(inner) + 1) for side in sides]
    distances = indices(*counts)
    tested = ks_2samp(*drawn, method="asymp")
    was, now = float(np.median(sides[1])), float(np.median(sides[0]))
    words = f"the median is {_figure(now)} and was {_figure(was)}"
    return _Raw(name, "number", *distances, None, float(tested.statistic), float(tested.pvalue), words)


def _category(
    name: str, new: "pd.DataFrame", old: "pd.DataFrame", samples: tuple[np.ndarray, np.ndarray], seed: int
) -> _Raw | None:
    import pandas as pd

    codes, values = pd.factorize(pd.concat([new[name], old[name]], ignore_index=True))
    codes = np.where(codes < 0, len(values), codes)
    names = [*map(str, values), "(none)"]
    if name == "licence":  # however it is spelt
        codes, names = _merged(codes, [normalise(value) for value in names[:-1]])
    commonest = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")[:VALUES]
    place = np.full(len(names), len(commonest))
    place[commonest] = np.arange(len(commonest))
    bins = place[codes]
    sides = [bins[: len(new)], bins[len(new) :]]
    drawn = [side[rows] for side, rows in zip(sides, samples, strict=True)]
    if min(map(len, drawn)) < FEWEST or (codes == len(names) - 1).all():
        return None
    counts = [np.bincount(side, minlength=len(commonest) + 1) for side in sides]
    distances = indices(*counts)
    few = [np.bincount(side, minlength=len(commonest) + 1) for side in drawn]
    statistic, p_value = _chi_square(few[0], few[1], seed, name)
    shares = [count / count.sum() for count in counts]
    most = int(np.argmax(np.abs(shares[0] - shares[1])))
    shown = f'"{shorten(names[commonest[most]], 40)}"' if most < len(commonest) else "what is rare"
    words = f"{shown} has {100 * shares[0][most]:.3g} % and had {100 * shares[1][most]:.3g} %"
    return _Raw(name, "category", *distances, None, statistic, p_value, words)


def _merged(codes: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Codes of values that turn out to be one get one code; the last code, of no value, stays last."""
    values = list(dict.fromkeys(names))
    place = {value: number for number, value in enumerate(values)}
    return np.array([*(place[name] for name in names), len(values)])[codes], [*values, "(none)"]


def _chi_square(new: np.ndarray, old: np.ndarray, seed: int, name: str) -> tuple[float, float]:
    """(chi-square, p-value by permutation) of two counts over the same values, shapes [values]."""
    both = new + old
    new, both = new[both > 0], both[both > 0]
    expected = both * new.sum() / both.sum()
    scale = 1 / expected + 1 / (both - expected)  # both rows of the table differ from what is expected by as much
    random = np.random.default_rng(seed_of(seed, "drift", name))
    by_chance = random.multivariate_hypergeometric(both, int(new.sum()), size=PERMUTATIONS, method="marginals")
    statistic = float(((new - expected) ** 2 * scale).sum())
    others = ((by_chance - expected) ** 2 * scale).sum(axis=1)
    return statistic, (1 + int((others >= statistic * (1 - 1e-9)).sum())) / (1 + PERMUTATIONS)


def _pictures(
    new: "pd.DataFrame",
    old: "pd.DataFrame",
    samples: tuple[np.ndarray, np.ndarray],
    embeddings: tuple[np.ndarray, np.ndarray] | None,
    seed: int,
) -> _Raw | None:
    if embeddings is not None:
        sides = [given[rows[:PICTURES]] for given, rows in zip(embeddings, samples, strict=True)]
    elif "descriptor" in new.columns and "descriptor" in old.columns:
        sides = [
            descriptors(table["descriptor"].iloc[rows[:PICTURES]])
            for table, rows in zip((new, old), samples, strict=True)
        ]
    else:
        return None
    if min(map(len, sides)) < FEWEST:
        return None
    statistic, p_value, auc = discrepancy(sides[0], sides[1], seed)
    words = f"a simple classifier tells new from old in {100 * auc:.0f} % of pairs (50 % is guessing)"
    return _Raw("pictures", "picture", None, None, None, auc, statistic, p_value, words)


def descriptors(column: "pd.Series") -> np.ndarray:
    """Hex texts of 192 bytes -> [rows, 192] float32 in 0-1; rows without one are left out."""
    known = [text for text in column if isinstance(text, str) and len(text) == 384]
    return np.frombuffer(bytes.fromhex("".join(known)), np.uint8).reshape(-1, 192).astype(np.float32) / 255


def _judged(found: list[_Raw]) -> tuple[Measure, ...]:
    adjusted = holm(np.array([one.p_value for one in found]))
    measures = []
    for one, p_value in zip(found, adjusted, strict=True):
        effect, limits = (one.auc, AUC_LIMITS) if one.auc is not None else (one.psi, PSI_LIMITS)
        assert effect is not None
        level: Level = LEVELS[sum(effect >= limit for limit in limits)] if p_value <= SIGNIFICANT else "none"
        index = f"PSI {one.psi:.2g}, " if one.psi is not None else ""
        said = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
        sentence = f"{one.measure}: {one.words} ({index}{said})."
        values = (one.psi, one.kl, one.js, one.auc, one.statistic, float(p_value))
        measures.append(Measure(one.measure, one.kind, *values, level, sentence))
    return tuple(measures)


def _finite(column: "pd.Series") -> np.ndarray:
    import pandas as pd

    values: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
