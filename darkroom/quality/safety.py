"""An optional classifier that judges the pictures: those that it takes for unwanted go to quarantine.

Any image classifier of transformers with weights in safetensors does; nothing is unpickled and no code of a model is
run. A picture is judged once by one set of weights: the scores of all classes are kept, so that other unwanted classes
or another limit judge anew without looking again. Classifiers err both ways: look at what the limit refuses.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cache import Cache
from darkroom.errors import RecipeError
from darkroom.reasons import reason
from darkroom.recipe import Check, Evaluate
from darkroom.recipe import Safety as Plan
from darkroom.store import Store
from darkroom.weights.locate import Weights, locate

from .picture import working_path

if TYPE_CHECKING:
    import torch

KIND = "unsafe picture"
TABLE = "safety"  # of the cache
BATCH = 16  # pictures at a time
DIGITS = 6  # of the scores kept: a batch's make-up can change the last bits
NAMED = 0.1  # share of the score from which on a class is named

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Classifier:
    """A classifier's weights, the names of its classes and which of them are unwanted."""

    weights: Weights
    labels: tuple[str, ...]
    unwanted: tuple[int, ...]
    """Places of the unwanted ones among the labels."""
    exclusive: bool
    """A picture is of one class (the scores sum to 1), or of any number of them."""
    field: str
    """Of the recipe, that names it."""

    def key(self, picture: str) -> str:
        """Where the scores of a picture, by the key of its working copy, are kept."""
        return f"{picture}:{self.weights.sha256}"


def find(plan: Plan) -> Classifier | None:
    """The recipe's classifier, or None; its configuration is read, its weights are not.

    Raises :class:`RecipeError` when it is no image classifier in safetensors, or has none of the ``safety_labels``.
    """
    if plan.safety is None:
        return None
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    weights = locate(plan.safety)
    field = "evaluate.safety" if isinstance(plan, Evaluate) else "check.safety"
    where = f"{field} = {plan.safety!r}"
    for needed, what in (("config.json", "configuration"), ("*.safetensors", "weights in safetensors")):
        if not any(weights.path.glob(needed)):
            raise RecipeError(f"{where} has no {what} ({needed}): name a folder or model of transformers that has")
    if not (weights.path / "preprocessor_config.json").is_file():
        raise RecipeError(f"{where} has no preprocessor_config.json, which says how pictures are made ready for it")
    try:
        config: Any = AutoConfig.from_pretrained(weights.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{where}: its config.json is not that of a model of transformers: {error}") from None
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise RecipeError(f"{where} is a {config.model_type}, and not an image classifier")
    labels = tuple(str(label) for _, label in sorted(config.id2label.items()))
    wanted = [text.strip().casefold() for text in plan.safety_labels if text.strip()]
    unwanted = tuple(place for place, label in enumerate(labels) if any(text in label.casefold() for text in wanted))
    if not unwanted:
        raise RecipeError(
            f"{field}_labels: none of {', '.join(plan.safety_labels) or '()'} is a class of {plan.safety}; "
            f"its classes are {', '.join(labels[:50])}{', …' if len(labels) > 50 else ''}"
        )
    return Classifier(weights, labels, unwanted, config.problem_type != "multi_label_classification", field)


def judge(
    keys: Sequence[object],
    plan: Check,
    store: Store,
    progress: Progress = lambda done, total: None,
) -> tuple[list[float | None], list[str | None]]:
    """(the column ``safety``, the reason to refuse each row or None), both None where there is no picture.

    ``keys``: the column ``working``. The score of a row is the probability, 0 to 1, that its picture is of an unwanted
    class; without ``check.safety`` all are None. Only pictures that these weights never saw are opened.
    """
    classifier = find(plan)
    if classifier is None:
        return [None] * len(keys), [None] * len(keys)
    found = scores(sorted({key for key in keys if isinstance(key, str)}), classifier, store, progress)
    values: list[float | None] = []
    reasons: list[str | None] = []
    for key in keys:
        score, names = _unwanted(found[key], classifier) if isinstance(key, str) else (None, "")
        above = score is not None and score > plan.safety_limit
        values.append(score)
        reasons.append(reason("check", KIND, f"{names} {score:.2f} > {plan.safety_limit:g}") if above else None)
    return values, reasons


def scores(keys: Sequence[str], classifier: Classifier, store: Store, progress: Progress) -> dict[str, list[float]]:
    """The scores of every class, by the key of the working copy: from the cache, or by looking at the picture."""
    with Cache(store.root / "cache.db") as cache:
        known = cache.get(TABLE, map(classifier.key, keys))
        found = {key: known[classifier.key(key)] for key in keys if classifier.key(key) in known}
        missing = [key for key in keys if key not in found]
        progress(len(found), len(keys))
        if missing:
            values = _look([working_path(store.root, key) for key in missing], classifier)
            for start, some in zip(range(0, len(missing), BATCH), values, strict=True):
                learnt = dict(zip(missing[start : start + BATCH], some, strict=True))
                cache.put(TABLE, {classifier.key(key): value for key, value in learnt.items()})
                found.update(learnt)
                progress(len(found), len(keys))
    return found


def unwanted_share(pictures: Sequence[Path], plan: Plan) -> float | None:
    """The share of picture files that the recipe's classifier takes for unwanted; None without a classifier."""
    classifier = find(plan)
    if classifier is None:
        return None
    found = [_unwanted(one, classifier)[0] for some in _look(pictures, classifier) for one in some]
    return sum(score > plan.safety_limit for score in found) / len(found)


def _look(pictures: Sequence[Path], classifier: Classifier) -> Iterator[list[list[float]]]:
    """The scores of the pictures of these files, in batches: [batch][classes]."""
    import torch
    from PIL import Image
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading; that of looking is the caller's
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoImageProcessor.from_pretrained(classifier.weights.path, **where)
        model: Any
        model, told = AutoModelForImageClassification.from_pretrained(
            classifier.weights.path, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **where
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise RecipeError(f"{classifier.field}: {classifier.weights.name} cannot be loaded: {error}") from error
    if told["missing_keys"]:  # would be drawn at random, and so would the scores
        lacking = ", ".join(sorted(told["missing_keys"])[:3])
        raise RecipeError(f"{classifier.field}: {classifier.weights.name} has no weights for {lacking}")
    model.eval()
    for start in range(0, len(pictures), BATCH):
        opened = []
        for path in pictures[start : start + BATCH]:
            with Image.open(path) as picture:
                opened.append(picture.convert("RGB"))
        with torch.inference_mode():
            logits = model(**processor(images=opened, return_tensors="pt")).logits
        yield _shares(logits, classifier.exclusive)


def _shares(logits: "torch.Tensor", exclusive: bool) -> list[list[float]]:
    """[batch, classes] -> probabilities, rounded."""
    shares = logits.softmax(-1) if exclusive else logits.sigmoid()
    return [[round(value, DIGITS) for value in row] for row in shares.tolist()]


def _unwanted(values: list[float], classifier: Classifier) -> tuple[float, str]:
    """(how surely a picture is unwanted, the classes that make it so).

    Exclusive classes are alternatives: their scores add up.
    """
    ranked = sorted(((values[place], classifier.labels[place]) for place in classifier.unwanted), reverse=True)
    if not classifier.exclusive:
        return ranked[0]
    total = min(1.0, sum(value for value, _ in ranked))
    named = [label for value, label in ranked if value >= NAMED * total] or [ranked[0][1]]
    return total, " or ".join(named)
