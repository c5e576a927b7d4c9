"""What every source of pictures yields, whatever it reads from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

# Files with these endings are pictures to whoever put them there, so each is a row. Those of the second group are not
# decoded: check refuses them by name, which is better than silence.
SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".mpo"),
        *(".avif", ".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".ico", ".tga", ".qoi", ".exr", ".hdr"),
        *(".ppm", ".pgm", ".pbm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
    }
)


@dataclass(frozen=True)
class Item:
    """One picture as its source offers it.

    ``path`` is relative to the source and names the picture inside it. ``caption`` and ``label`` are what the source
    says, untouched. ``fingerprint`` promises that equal fingerprints of one path mean equal bytes, so that ``read``
    need not be called again; None where the source can promise nothing, ``sha256:…`` where it knows the bytes' digest.
    ``size`` is that of the file in bytes, None where it is not known beforehand. ``read`` returns the file's bytes and
    raises ``OSError`` where it cannot. ``origin`` is where the picture came from before this source (a page, an
    address, a data set); ``key`` its own name or number there; ``sidecar`` a second text beside the picture, from which
    a missing caption can be mended.
    ``open``, where it is not None, opens the same bytes as a regular local file, which is copied without being held in
    memory. ``remote`` says that ``read`` waits for a network and may be called from several threads.
    """

    path: str
    caption: object
    label: object
    licence: str
    fingerprint: str | None
    size: int | None
    read: Callable[[], bytes]
    origin: str | None = None
    key: str | None = None
    sidecar: object = None
    open: Callable[[], BinaryIO] | None = None
    remote: bool = False


def refuse(problem: str) -> Callable[[], bytes]:
    """A ``read`` for a row whose picture cannot be had: it raises ``OSError`` with the reason."""

    def read() -> bytes:
        raise OSError(problem)

    return read


def problem_item(path: str, problem: str, licence: str, caption: object = None, label: object = None) -> Item:
    """A row that says why there is no picture."""
    return Item(path, caption, label, licence, None, None, refuse(problem))


def text_of(content: bytes) -> str:
    """The text of a small file beside a picture: UTF-8 or UTF-16 by its mark, else UTF-8, else Windows-1252.

    Such files come from editors of every kind, and a caption that was read wrongly is caught by its odd letters later,
    so a guess is better than no caption. Ends of lines at the end are the file's, not the caption's.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", errors="replace")
    return text.rstrip("\r\n")
