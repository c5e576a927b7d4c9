"""Make the tutorial's folder: small "photos" to learn on, with the faults that real folders have.

``python docs/tutorial/make_photos.py ~/my-digits`` writes

- ``photos/``: 1,200 of scikit-learn's scanned digits in class folders, captions beside the even ones, and seven faults;
- ``tomorrow/``: the other 597, which the tutorial adds later;
- ``my-digits.toml``: the recipe.

The same files each time, so what the tutorial quotes can be compared.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from darkroom.collect.digits import items
from darkroom.collect.source import Item

TODAY = 1200
HERE = Path(__file__).parent


def main(folder: Path) -> None:
    """Fill a new or empty folder; anything else is left as it is."""
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: name a new folder")
    for index, item in enumerate(items()):
        keep(item, index, folder / ("photos" if index < TODAY else "tomorrow"))
    for name, content, caption in faults(folder / "photos"):
        write(folder / "photos" / name, content, caption)
    shutil.copy(HERE / "my-digits.toml", folder)
    print(f"{folder}: {TODAY:,} photos and 7 faults, {index + 1 - TODAY:,} more for tomorrow, and my-digits.toml")


def keep(item: Item, index: int, folder: Path) -> None:
    """Write one digit as ``seven/0007.png``, every other one with its caption in ``seven/0007.txt``."""
    assert item.read is not None, "the digits are always there"
    write(folder / str(item.label) / item.path, item.read(), item.caption if index % 2 == 0 else None)


def write(path: Path, content: bytes, caption: str | None) -> None:
    """A picture, and its caption beside it if it has one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, "utf-8")


def faults(photos: Path) -> Iterator[tuple[str, bytes, str | None]]:
    """(name, bytes, caption) of seven files that something is wrong with."""
    good = sorted(photos.glob("*/*.png"))
    whole = good[0].read_bytes()
    yield "zero/cut-short.png", whole[:100], None  # a copy that broke off
    yield "one/empty.png", b"", None
    yield "two/letter.png", b"Dear Ana, the pictures are in the other folder.", None  # not a picture at all
    yield "three/again.png", good[3].read_bytes(), None  # the same bytes under another name
    yield "four/dot.png", drawn((1, 1)), None  # smaller than what may be trained on
    yield "five/strip.png", drawn((96, 8)), None  # a banner among squares
    yield "six/blank.png", drawn((8, 8)), "a handwritten six"  # the lens cap was on


def drawn(size: tuple[int, int]) -> bytes:
    """A black PNG."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("L", size).save(out, format="PNG")
    return out.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/tutorial/make_photos.py FOLDER")
    main(Path(sys.argv[1]).expanduser())
