"""What every source of pictures yields, whatever it reads from."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One picture as its source offers it.

    ``path`` is relative to the source and names the picture inside it. ``caption`` and ``label`` are what the source
    says, untouched. ``fingerprint`` promises that equal fingerprints of one path mean equal bytes, so that ``read``
    need not be called again; None where the source can promise nothing. ``size`` is that of the file in
    bytes, None where it is not known beforehand. ``read`` returns the file's bytes and raises
    ``OSError`` where it cannot. ``origin`` is where the picture came from before this source (a page, an address, a
    data set); ``sidecar`` a second text found beside the picture, from which a missing caption can be mended.
    """

    path: str
    caption: object
    label: object
    licence: str
    fingerprint: str | None
    size: int | None
    read: Callable[[], bytes]
    origin: str | None = None
    sidecar: object = None
