"""A first recipe for a folder of pictures, with the reasons for its choices beside them."""

import statistics
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import RecipeError
from darkroom.recipe import Collect, parse

from .folder import items
from .source import Item

SIZES = (512, 256, 128, 64)  # sides that four levels of the UNet divide evenly, in latents of an eighth
LOOKED_AT = 200  # pictures whose size is read
WANTED = 2_000  # pictures below which training from scratch mostly learns them by heart
BATCH = 16


@dataclass(frozen=True)
class Survey:
    """What lies in a folder: how many pictures, captions and labels; the median shorter side, in pixels."""

    pictures: int
    captions: int
    labels: int
    classes: int
    licences: int
    side: int | None
    prompts: tuple[str, ...]


def suggest(name: str, folder: Path) -> str:
    """The text of a recipe that trains a model ``name`` from scratch on the pictures in ``folder``.

    Raises :class:`RecipeError` when there are none, or when the name cannot be one.
    """
    where = str(folder.expanduser().resolve())
    try:
        where.encode()
    except UnicodeEncodeError:
        raise RecipeError(f"{where!r}: the folder's name is not valid UTF-8, so a recipe cannot hold it") from None
    found = survey(Path(where))
    if not found.pictures:
        raise RecipeError(f"{where} has no pictures: name another folder with --images")
    text = _write(name, where, found)
    parse(tomllib.loads(text), f"the recipe {name}")  # it must be valid before anybody reads it
    return text


def survey(folder: Path) -> Survey:
    """Look through a folder; rows that cannot be read count for nothing."""
    rows = [item for item in items(Collect(source="folder", path=str(folder))) if item.fingerprint is not None]
    captions = Counter(text for item in rows if (text := _text(item.caption) or _text(item.sidecar)))
    labels = Counter(text for item in rows if (text := _text(item.label)))
    step = max(1, len(rows) // LOOKED_AT)
    sides = [side for item in rows[::step] if (side := shorter_side(item)) is not None]
    prompts = [text for text, _ in captions.most_common() if len(text) <= 200] or [
        f"a photo of {label}" for label, _ in labels.most_common()
    ]
    return Survey(
        pictures=len(rows),
        captions=captions.total(),
        labels=labels.total(),
        classes=len(labels),
        licences=sum(item.licence != "unknown" for item in rows),
        side=round(statistics.median(sides)) if sides else None,
        prompts=tuple(prompts[:: max(1, len(prompts) // 4)][:4]),
    )


def shorter_side(item: Item) -> int | None:
    """Of a picture whose header can be read. Pixels."""
    from PIL import Image

    try:
        assert item.open is not None, "the folder is of this machine"
        with item.open() as file, Image.open(file, formats=("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")) as picture:
            return min(picture.size)
    except Exception:  # a decoder meets hostile bytes: whatever it raises, check will say more
        return None


def _text(value: object) -> str | None:
    return " ".join(value.split()) or None if isinstance(value, str) else None


def _write(name: str, where: str, found: Survey) -> str:
    size = next((size for size in SIZES if found.side is not None and size <= found.side), SIZES[-1])
    missing = found.pictures - found.captions
    from_labels = missing > 0 and found.labels > 0
    required = missing == 0 or found.captions + found.labels >= found.pictures
    # About 200 looks at each picture, within what one may wait for.
    steps = min(max(200 * found.pictures // BATCH, 2_000), 50_000) // 100 * 100
    channels = "[128, 256, 384, 512]" if found.pictures < 20_000 else "[320, 640, 1280, 1280]"
    nameless = found.pictures - found.licences
    licence = f"of the {nameless:,} pictures that name none" if nameless else "every picture names its own"
    lines = [
        f"# {found.pictures:,} pictures, {found.captions:,} with a caption, {found.labels:,} with a label"
        f" ({found.classes:,} classes). Look at the data first: darkroom check {name}",
        "version = 1",
        f"name = {toml_text(name)}",
        "seed = 0",
        "",
        "[collect]",
        'source = "folder"',
        f"path = {toml_text(where)}",
        f'licence = "unknown"                    # {licence}',
        "",
        "[check]",
    ]
    if required:
        lines.append('captions = "required"')
    else:
        lines.append(
            f'captions = "optional"                  # {missing:,} pictures have none; "required" leaves them out'
        )
    if from_labels:
        lines += [
            'mend = ["text", "sidecar", "template"]  # a missing caption is made of the label',
            'template = "a photo of {label}"',
        ]
    lines += [
        "",
        "[split]",
        f"validation_share = {0.1 if found.pictures >= 100 else 0.2}",
        "",
        "[preprocess]",
        f"size = {size}"
        + (f"                             # the median picture's shorter side is {found.side:,}" if found.side else ""),
        *_few(found),
        "",
        "[model]                                 # fetched once from the hub: 335 MB and 1.7 GB; folders do, too",
        'vae = "stabilityai/sd-vae-ft-mse"',
        'text_encoder = "openai/clip-vit-large-patch14"',
        "",
        "[model.unet]                            # trained from scratch",
        f"block_out_channels = {channels}",
        "",
        "[train]",
        f"steps = {steps}",
        f"batch = {BATCH}",
        "learning_rate = 1e-4",
        "ema_decay = 0.999",
        "checkpoint_every = 500",
        "validate_every = 500",
        "grid_every = 1000",
        *(["prompts = ["] + [f"  {toml_text(prompt)}," for prompt in found.prompts] + ["]"] if found.prompts else []),
        "",
        "[evaluate]",
        'features = "openai/clip-vit-large-patch14"  # the text encoder\'s own file, so nothing more is fetched',
        'clip = "openai/clip-vit-large-patch14"',
        "sampler = { steps = 20, guidance = 3.0, batch = 8 }",
        "",
        "[register]",
        'promote = "ask"                         # a person moves the champion; "auto" lets a PASS do it',
        "",
    ]
    return "\n".join(lines)


def _few(found: Survey) -> list[str]:
    """Flips for few pictures: they double what there is, where left and right may be exchanged."""
    if found.pictures >= WANTED:
        return []
    return [
        f"# From scratch one wants {WANTED:,} pictures and more: with fewer the model repeats them. Mirrored copies",
        "# help; take them out where left and right matter, as in writing.",
        "augment = { variants = 2, flip = true }",
    ]


def toml_text(text: str) -> str:
    """A TOML string, whatever the text has in it; half of a surrogate pair becomes a question mark."""
    escaped = "".join(
        f"\\{letter}"
        if letter in '"\\'
        else f"\\u{ord(letter):04x}"
        if ord(letter) < 32 or ord(letter) == 127
        else letter
        for letter in text.encode("utf-8", "replace").decode()
    )
    return f'"{escaped}"'
