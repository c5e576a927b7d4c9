"""scikit-learn's 1,797 scanned handwritten digits, as captioned PNG files.

The pictures are those of ``sklearn.datasets.load_digits`` (E. Alpaydin and C. Kaynak, Optical Recognition of
Handwritten Digits, UCI, 1998; CC BY 4.0): 8x8, ink bright on black, 0-16 stretched to 0-255.
"""

import hashlib
import io
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .source import Item

if TYPE_CHECKING:
    import numpy as np

NAME = "digits"
LICENCE = "CC-BY-4.0"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CHINESE = "零一二三四五六七八九"

# Each picture is captioned in one of these ways, so that a model learns that they mean the same.
WORDINGS = (
    "a handwritten {word}",
    "a handwritten {digit}",
    "the digit {word}",
    "handwritten digit {digit}",
    "{word} written by hand",
    "{word}",
    "手寫數字{chinese}",
    "手写数字{chinese}",
)


def caption(digit: int, wording: int) -> str:
    """The caption of ``digit`` (0-9) in the ``wording``-th of :data:`WORDINGS`."""
    return WORDINGS[wording].format(word=WORDS[digit], digit=digit, chinese=CHINESE[digit])


def items() -> Iterator[Item]:
    """Yield the 1,797 digits in scikit-learn's order; ``label`` is the digit's English word."""
    for index, (pixels, digit) in enumerate(zip(*_scans(), strict=True)):
        path = f"{index:04d}.png"
        # The wording follows from the path alone: neither the order nor the number of pictures matters.
        wording = hashlib.sha256(path.encode()).digest()[0] % len(WORDINGS)
        content = _png(pixels)
        yield Item(
            path=path,
            caption=caption(int(digit), wording),
            label=WORDS[int(digit)],
            licence=LICENCE,
            fingerprint=hashlib.sha256(content).hexdigest(),
            size=len(content),
            read=partial(bytes, content),
        )


def _scans() -> "tuple[np.ndarray, np.ndarray]":
    """What ``load_digits`` returns as images [1797, 8, 8] and target [1797], without the seconds of its import."""
    import numpy as np

    package = find_spec("sklearn")  # finds a package without importing it
    folders = list(package.submodule_search_locations or ()) if package else []
    files = [path for folder in folders if (path := Path(folder, "datasets/data/digits.csv.gz")).is_file()]
    if not files:  # another release may keep its data elsewhere, and knows where
        from sklearn.datasets import load_digits

        data = load_digits()
        return data.images, data.target
    table = np.loadtxt(files[0], delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)


def _png(pixels: "object") -> bytes:
    """8x8 float in [0, 16] -> PNG bytes, uncompressed so that they are the same with every zlib."""
    import numpy as np
    from PIL import Image

    grey = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, format="PNG", compress_level=0)
    return out.getvalue()
