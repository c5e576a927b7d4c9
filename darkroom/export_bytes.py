"""A picture file's own bytes without what may identify people: EXIF, XMP, IPTC, comments, and whatever follows the end.

The pixels are not touched. Only JPEG and PNG are taken apart; of others darkroom exports the working copy.
"""

from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
# What is needed to read the pixels right: colours, transparency and, first and last, the picture itself.
PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"pHYs"}
JFIF = b"JFIF\0"
APP0, APP2, APP14, APP15, COM = 0xE0, 0xE2, 0xEE, 0xEF, 0xFE
SOS, EOI, RST0, RST7, TEM = 0xDA, 0xD9, 0xD0, 0xD7, 0x01


def without_metadata(content: bytes) -> tuple[bytes, str] | None:
    """(the bytes that are kept, their suffix), or None for a file that is neither JPEG nor PNG or breaks its format."""
    try:
        if content.startswith(PNG_START):
            return PNG_START + b"".join(_chunks(content)), ".png"
        if content.startswith(b"\xff\xd8"):
            return b"\xff\xd8" + b"".join(_segments(content)), ".jpg"
    except (ValueError, IndexError):
        return None
    return None


def _chunks(content: bytes) -> Iterator[bytes]:
    """PNG's chunks: length, name, data, checksum (https://www.w3.org/TR/png-3/#5Chunk-layout)."""
    place = len(PNG_START)
    while True:
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        name = content[place + 4 : place + 8]
        if end > len(content):
            raise ValueError("cut short")
        if name in PNG_KEPT:
            yield content[place:end]
        if name == b"IEND":
            return
        place = end


def _segments(content: bytes) -> Iterator[bytes]:
    """JPEG's segments after the first marker (ITU-T T.81, annex B), up to the end of the first picture."""
    place = 2
    while True:
        start = place
        if content[place] != 0xFF:
            raise ValueError("no marker")
        while content[place] == 0xFF:  # markers may be padded
            place += 1
        marker = content[place]
        place += 1
        if marker == EOI:
            yield b"\xff\xd9"
            return
        if marker == TEM or RST0 <= marker <= RST7:
            yield content[start:place]
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        end = place + length
        if length < 2 or end > len(content):
            raise ValueError("cut short")
        if marker == SOS:
            end = _scan_end(content, end)
        if marker == APP0 and content[place + 2 : end].startswith(JFIF):
            yield b"\xff\xe0\x00\x10" + content[place + 2 : place + 14] + b"\0\0"  # without its thumbnail
        elif _is_kept(marker, content[place + 2 : place + 14]):
            yield content[start:end]
        place = end


def _is_kept(marker: int, head: bytes) -> bool:
    """All that is not application data or a comment; of these Adobe's colours and the ICC profile."""
    if marker == COM or APP0 <= marker <= APP15:
        known = {APP2: b"ICC_PROFILE\0", APP14: b"Adobe"}
        return marker in known and head.startswith(known[marker])
    return True


def _scan_end(content: bytes, place: int) -> int:
    """Where the coded data end that begin at ``place``: at the first marker that is no restart and no escaped 0xFF."""
    while True:
        place = content.index(b"\xff", place)
        following = content[place + 1]
        if following == 0 or RST0 <= following <= RST7:
            place += 2
        elif following == 0xFF:
            place += 1
        else:
            return place
