"""The smoke test before a version becomes champion: loaded as it is served, does it draw a picture?

Not whether the picture is good, which the gate judges, but whether anything comes: weights that are numbers, and a
picture of the right size that is not one flat colour.
"""

import base64
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import DarkroomError, Unservable
from .registry import Registry, Version

if TYPE_CHECKING:
    from PIL.Image import Image

TRIES = 4  # pictures that may be flat before all are: a sound model draws one now and then


def draws(registry: Registry, version: Version) -> None:
    """Raise :class:`Unservable` unless the version, loaded as MLflow serves it, draws a picture."""
    try:
        registry.pipeline_folder(version)
        painter = registry.load(version).unwrap_python_model()
    except DarkroomError as error:
        raise Unservable(f"{version.uri} stays what it is, as it cannot be loaded: {error}") from error
    except Exception as error:  # whatever a damaged model makes its libraries raise
        raise Unservable(
            f"{version.uri} stays what it is, as it cannot be loaded as MLflow serves it: {_words(error)}"
        ) from error
    if broken := next(_broken_weights(painter), None):
        raise Unservable(f"{version.uri} stays what it is: its weights {broken} hold values that are no numbers")
    try:
        found = _rebuilt(painter) if hasattr(painter, "vae") else _drawn(painter, _prompts(registry, version, painter))
    except Unservable:
        raise
    except Exception as error:
        raise Unservable(f"{version.uri} stays what it is, as it draws no picture: {_words(error)}") from error
    if found:
        raise Unservable(f"{version.uri} stays what it is: {found}")


def _drawn(painter: Any, prompts: list[str]) -> str | None:
    """What is wrong with the pictures of a pipeline; None as soon as one is as it should be."""
    import pandas as pd

    from .served_model import CLASSES

    painter.sampler = {**painter.sampler, "batch": 1}  # one picture costs one: it is looked at, not compared
    _, height, width = CLASSES[type(painter.pipe).__name__][1](painter.pipe)
    vae = getattr(painter.pipe, "vae", None)
    scale = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 1
    for seed in range(TRIES):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # pixels that are no numbers
            answer = painter.predict(pd.DataFrame({"prompt": [prompts[seed % len(prompts)]]}), {"seed": seed})
        picture = _picture(answer["image"][0])
        if picture.size != (width * scale, height * scale):
            size = f"{width * scale} x {height * scale}"
            return f"its picture has {picture.size[0]} x {picture.size[1]} pixels, and {size} were asked for"
        if not _flat(picture):
            return None
    return f"each of {TRIES} pictures is one flat colour"


def _rebuilt(painter: Any) -> str | None:
    """What is wrong with a picture that an autoencoder rebuilt."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    side = 8 * 2 ** (len(painter.vae.config.block_out_channels) - 1)
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=-1)  # HWC
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    answer = painter.predict(pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]}))
    picture = _picture(answer["image"][0])
    if picture.size != (side, side):
        return f"it rebuilds {side} x {side} pixels as {picture.size[0]} x {picture.size[1]}"
    return "the picture that it rebuilds is one flat colour" if _flat(picture) else None


def _prompts(registry: Registry, version: Version, painter: Any) -> list[str]:
    """What the model may be asked for: a class that it knows, what its recipe drew while training, or nothing."""
    if labels := getattr(painter.pipe, "labels", None):
        return [str(next(iter(labels)))]
    params: Mapping[str, str] = registry.run(version.run_id)["data"]["params"] if version.run_id else {}
    try:
        known = json.loads(params.get("train.prompts", "[]"))
    except ValueError:  # cut to MLflow's limit
        known = []
    return [str(one) for one in known] if isinstance(known, list) and known else [""]


def _broken_weights(painter: Any) -> Iterator[str]:
    """Names of weights that are not finite."""
    import torch

    parts = {"vae": painter.vae} if hasattr(painter, "vae") else painter.pipe.components
    for part, module in parts.items():
        if isinstance(module, torch.nn.Module):
            for name, weights in module.named_parameters():
                if not torch.isfinite(weights).all():
                    yield f"{part}.{name}"


def _picture(text: str) -> "Image":
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as file:
        return file.convert("RGB")


def _flat(picture: "Image") -> bool:
    import numpy as np

    from .evaluation.sets import blank

    return blank(np.asarray(picture).transpose(2, 0, 1)[None]) > 0


def _words(error: Exception) -> str:
    """An error of a library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
