"""How many pictures are enough, and what augmentation adds when they are few, in words for people new to it.

These are rules of thumb. What they rest on, where there is more than habit:

- textual inversion, 3-5 pictures: Gal et al., An Image Is Worth One Word (2022), section 4.
- DreamBooth, 3-5 pictures of a subject: Ruiz et al., DreamBooth (2022); guides of its users go up to about 30.
- LoRA for a style: no study that we know of; guides of its users say 20 to 100, some up to 200.
- fine-tuning of all weights: no study either; the well-known public example, Pinkney's text-to-Pokemon (2022), had 833.
- from scratch: Kadkhodaie et al., Generalization in diffusion models arises from geometry-adaptive harmonic
  representations (2024): denoisers of faces of 80x80 pixels repeat their pictures when these are below about 1,000, and
  two of them that had different ones come to agree between 10,000 and 100,000. Small pictures need fewer: darkroom's
  own digits, 1,454 of 16x16, draw new ones (benchmarks/README.md); common sets of 32x32 have 50,000, ImageNet 1.3
  million. The steps in between are guesses.
- augmentation: Karras et al., Training Generative Adversarial Networks with Limited Data (2020), for when it helps;
  Nakamura et al., Regularization for Unconditional Image Diffusion Models via Shifted Data Augmentation (2025), for
  how what is done to the pictures can leak into what is drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from darkroom.errors import RecipeError

Method = Literal["textual inversion", "dreambooth", "lora", "full fine-tuning", "from scratch"]
RANGES: dict[str, tuple[int, int, str]] = {
    "textual inversion": (3, 10, "Textual inversion teaches a finished model one new word"),
    "dreambooth": (5, 30, "DreamBooth teaches a finished model one subject"),
    "lora": (20, 200, "A LoRA teaches a finished model one style or subject"),
    "full fine-tuning": (1_000, 50_000, "Fine-tuning all weights moves a finished model to other pictures"),
}
# From scratch: (largest side, pixels; fewest pictures; from where on more of the same kind add little)
SCRATCH = ((32, 1_000, 50_000), (64, 10_000, 100_000), (256, 100_000, 1_000_000), (4096, 1_000_000, 100_000_000))
RARE = 0.1  # a label with less than this share of the commonest one's pictures will hardly be learnt


@dataclass(frozen=True)
class Advice:
    """``verdict`` on the number of pictures against the ``typical`` range, and ``paragraphs`` that explain it."""

    method: str
    pictures: int
    typical: tuple[int, int]
    verdict: Literal["too few", "enough", "plenty"]
    paragraphs: tuple[str, ...]


def advice(
    pictures: int,
    labels: Mapping[str, int] | None,
    method: str,
    size: int = 512,
    variants: int = 1,
) -> Advice:
    """Whether ``pictures`` accepted pictures are enough for a ``method`` of training at ``size`` pixels.

    ``labels`` are the pictures of each label, None where there are none; ``variants`` those that the recipe makes of
    each training picture. Labels come back in the paragraphs as they are: escape them. Raises :class:`RecipeError` for
    a method that is not known.
    """
    low, high, what = _range(method, size)
    verdict: Literal["too few", "enough", "plenty"]
    verdict = "too few" if pictures < low else "plenty" if pictures > high else "enough"
    paragraphs = [f"{what}; that is usually done with {low:,} to {high:,} pictures. {_judged(pictures, low, verdict)}"]
    paragraphs += _on_labels(labels)
    paragraphs.append(_on_variants(pictures, low, variants, verdict))
    paragraphs.append(
        "These numbers are rules of thumb, not laws: ten pictures that differ in view, light and background are worth "
        "more than a hundred that do not. Whether they were enough is seen in the evaluation: a nearest_ratio well "
        "below 1 says that the model repeats its training pictures."
    )
    return Advice(method, pictures, (low, high), verdict, tuple(paragraphs))


def _range(method: str, size: int) -> tuple[int, int, str]:
    if method == "from scratch":
        _, low, high = next(row for row in SCRATCH if size <= row[0] or row == SCRATCH[-1])
        return low, high, f"Training from scratch learns all it knows from these pictures, here at {size}x{size} pixels"
    if method not in RANGES:
        raise RecipeError(f"method = {method!r} is not a kind of training: {', '.join(get_args(Method))}")
    return RANGES[method]


def _judged(pictures: int, low: int, verdict: str) -> str:
    have = f"You have {pictures:,}"
    if verdict == "too few":
        return (
            f"{have}, which is fewer: the model is likely to learn them by heart and to draw copies of them. "
            f"Collect {low - pictures:,} more, or choose a kind of training that needs fewer."
        )
    if verdict == "enough":
        return f"{have}, which is within that."
    return f"{have}, which is more: choose the best of them, or a kind of training that can use them all."


def _on_labels(labels: Mapping[str, int] | None) -> list[str]:
    if not labels or len(labels) < 2:
        return []
    ordered = sorted(labels.items(), key=lambda item: (item[1], item[0]))
    (rarest, fewest), (commonest, most) = ordered[0], ordered[-1]
    text = (
        f"Of {len(labels):,} labels the rarest, {_short(rarest)}, has {fewest:,} and the commonest, "
        f"{_short(commonest)}, {most:,}."
    )
    rare = sum(count < RARE * most for count in labels.values())
    if rare:
        text += (
            f" {rare:,} of them {'has' if rare == 1 else 'have'} less than a tenth of the commonest one's: what is "
            "rare in the data is rarely drawn right, so collect more of it first."
        )
    return [text]


def _on_variants(pictures: int, low: int, variants: int, verdict: str) -> str:
    """What augmentation does, or would do."""
    tail = (
        "They are not new pictures: a mirrored, cropped or recoloured one shows the same thing, so they delay learning "
        "by heart and teach nothing that no picture shows. What is done to pictures can also appear in what is drawn: "
        "do not mirror pictures with writing or with a left and a right, and vary colours little."
    )
    if variants > 1:
        return (
            f"With preprocess.augment.variants = {variants} the model sees {pictures * variants:,} training rows, "
            f"{variants} of each of {pictures:,} pictures (fewer by those kept for validation). {tail}"
        )
    if verdict != "too few":
        return f"Augmentation (preprocess.augment) is off, and with this many pictures it adds little. {tail}"
    wanted = min(64, max(2, -(-low // max(pictures, 1))))
    return (
        f"Augmentation can help a little: preprocess.augment with variants = {wanted} would make {pictures * wanted:,} "
        f"training rows of {pictures:,} pictures. {tail}"
    )


def _short(label: str) -> str:
    text = " ".join(label.split())
    return repr(text if len(text) <= 40 else text[:39] + "…")
