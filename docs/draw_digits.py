"""Draw ``docs/digits.png``: what the built-in recipe's champion draws, 16 of each digit, three times as large.

``.venv/bin/python docs/draw_digits.py``, after ``make demo``.
"""

import tempfile
from pathlib import Path

from PIL import Image

from darkroom.collect.digits import WORDS
from darkroom.generate import generate
from darkroom.settings import Settings
from darkroom.tracking import open_registry

COUNT, SIDE, GAP = 16, 48, 4


def main() -> None:
    """Draw with seed 1 and the model's own sampler."""
    registry = open_registry(Settings(), "digits")
    step = SIDE + GAP
    sheet = Image.new("RGB", (COUNT * step + GAP, len(WORDS) * step + GAP), (24, 24, 24))
    for line, word in enumerate(WORDS):
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            out = Path(folder) / "pictures"
            generate(
                registry,
                "digits@champion",
                f"a handwritten {word}",
                count=COUNT,
                seed=1,
                out=out,
                steps=0,
                guidance=-1.0,
                say=lambda text: None,
            )
            for column in range(COUNT):
                with Image.open(out / f"{column:04d}.png") as picture:
                    large = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
                sheet.paste(large, (GAP + column * step, GAP + line * step))
    sheet.save(Path(__file__).with_name("digits.png"), optimize=True)


if __name__ == "__main__":
    main()
