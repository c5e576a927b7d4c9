"""Whether generated pictures are copies of training pictures, and which."""

from pathlib import Path
from typing import Any

import numpy as np

from darkroom.store import write_json

from .sets import memorisation

SHOWN = 8  # suspects that are drawn beside their nearest training pictures
TINY = 1e-12


def nearest(pictures: np.ndarray, training: np.ndarray, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """(Euclidean distance to the nearest training picture, its place), [N]; both [*, 3, H, W] in [0, 255]."""
    flat = training.reshape(len(training), -1).astype(np.float64)
    norms = (flat**2).sum(axis=1)
    distances, places = [], []
    for start in range(0, len(pictures), block):
        part = pictures[start : start + block].reshape(-1, flat.shape[1]).astype(np.float64)
        squares = (part**2).sum(axis=1)[:, None] + norms - 2 * part @ flat.T
        places.append(squares.argmin(axis=1))
        distances.append(np.sqrt(np.maximum(squares.min(axis=1), 0)))
    return np.concatenate(distances), np.concatenate(places)


def copying(drawn: np.ndarray, held_out: np.ndarray, training: np.ndarray, ids: list[str], work: Path) -> Any:
    """Measures of copying, by name; all pictures uint8 [*, 3, S, S], ``ids`` those of the training pictures.

    Writes ``suspects.json``: generated pictures that are nearer to a training picture than 99 % of the held-out ones,
    the nearest first, and shows some of them above the training pictures in ``suspects.png``.
    """
    own, places = nearest(drawn, training)
    others, _ = nearest(held_out, training)
    found = memorisation(own, others)
    pairs = [
        {"generated": int(one), "training": ids[places[one]], "distance": round(float(own[one]), 3)}
        for one in found.suspects
    ]
    write_json(work / "suspects.json", {"threshold": round(found.threshold, 3), "pairs": pairs})
    if shown := found.suspects[:SHOWN]:
        _show(np.stack([drawn[one] for one in shown]), training[[places[one] for one in shown]], work / "suspects.png")
    middle, usual = float(np.median(own)), float(np.median(others))
    return {
        "nearest_train": middle,
        "nearest_train_validation": usual,
        "nearest_ratio": middle / max(usual, TINY),
        "memorised_share": found.share,
        "memorised_p": found.p_value,
    }


def _show(above: np.ndarray, below: np.ndarray, target: Path) -> None:
    """Two rows of pictures: the generated ones over the training pictures that they are nearest to."""
    from PIL import Image

    from darkroom.diffusion.sampling import grid

    pictures = [Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))) for one in (*above, *below)]
    grid(pictures, columns=len(above)).save(target)
