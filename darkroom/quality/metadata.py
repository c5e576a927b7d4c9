"""What a file says about its picture besides the pixels: orientation, colour profile, whom it identifies.

Every reader here meets hostile bytes: it looks at nothing outside of them, follows no link twice, and reports what is
broken as a remark, because pixels can be fine where metadata is not.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

ORIENTATION, GPS, EXIF_PART = 0x0112, 0x8825, 0x8769
# Artist, copyright, XPAuthor; in the Exif part: owner's name, serial number, maker's note (which often has both).
AUTHOR_TAGS = frozenset((0x013B, 0x8298, 0x9C9D, 0xA430, 0xA431, 0x927C))
XMP_GPS = re.compile(rb"exif:GPS", re.IGNORECASE)
XMP_AUTHOR = re.compile(rb"dc:creator|tiff:Artist|photoshop:(?:Credit|Author)|xmpRights:Owner", re.IGNORECASE)
IPTC_AUTHOR = b"\x1c\x02\x50"  # record 2, data set 80: by-line
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
STANDARD_STEPS = 105  # sum of the first 8 of Annex K's luminance table, which is quality 50; the last ones are clipped
MAX_SCANS = 500  # a real progressive JPEG has about ten; each costs a pass over all coefficients


@dataclass
class Metadata:
    """What was found; ``remarks`` are "kind: detail" for what is broken or odd, but does not hurt the pixels."""

    orientation: int = 1
    icc: bytes | None = None
    gps: bool = False
    author: bool = False
    remarks: list[str] = field(default_factory=list)

    def read_exif(self, content: bytes) -> None:
        """Orientation, GPS and author out of an Exif block, with or without its header."""
        if content.startswith(b"Exif\0\0"):
            content = content[6:]
        try:
            tags = tiff_tags(content)
            if EXIF_PART in tags:
                tags = {**tiff_tags(content, tags[EXIF_PART]), **tags}
        except (struct.error, ValueError):
            self.remarks.append("broken EXIF")
            return
        self.gps |= GPS in tags
        self.author |= not AUTHOR_TAGS.isdisjoint(tags)
        orientation = tags.get(ORIENTATION, 1)
        if 1 <= orientation <= 8:
            self.orientation = orientation
        elif orientation:  # 0 is written for "not known"
            self.remarks.append(f"broken EXIF: orientation {orientation}")

    def read_xmp(self, content: bytes) -> None:
        """Whether an XMP packet names a place or a person."""
        self.gps |= XMP_GPS.search(content) is not None
        self.author |= XMP_AUTHOR.search(content) is not None


def tiff_tags(content: bytes, offset: int | None = None) -> dict[int, int]:
    """Tags of one directory of a TIFF structure, the first or that at ``offset``, each with its number or its offset.

    Raises ``struct.error`` or ``ValueError`` when the structure is broken.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        raise ValueError("no TIFF header")
    if offset is None:
        (offset,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, offset)
    tags = {}
    for place in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", content, place)
        (tags[tag],) = struct.unpack_from(order + {1: "B", 3: "H"}.get(kind, "I"), content, place + 8)
    return tags


@dataclass
class JpegHeader:
    """What stands before a JPEG's first scan. ``quality`` is an estimate (None: unusual tables), ``scan`` an offset.

    ``sampling``: "420" where colour is kept for every second pixel across and down, else "444".
    """

    width: int
    height: int
    channels: int
    precision: int
    progressive: bool
    frames: int
    quality: int | None
    sampling: str
    scan: int
    metadata: Metadata


def jpeg_header(content: bytes) -> JpegHeader:
    """Walk over a JPEG's segments up to its first scan; raises ``ValueError`` when there is no whole header."""
    metadata = Metadata()
    frame: tuple[int, int, int, int] | None = None
    sampling = "444"
    progressive, frames, quality, scan = False, 1, None, 0
    profile: dict[int, bytes] = {}
    parts = 0
    for marker, start, stop in _segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            precision, height, width, channels = struct.unpack_from(">BHHB", content, start)
            frame, progressive = (precision, height, width, channels), marker in (0xC2, 0xC6, 0xCA, 0xCE)
            if channels == 3 and content[start + 6 : stop][1::3] == b"\x22\x11\x11":
                sampling = "420"
        elif marker == 0xDB and content[start] == 0:  # the first table, of 8 bits: luminance
            quality = _quality(content[start + 1 : start + 65])
        elif marker == 0xE1 and content.startswith(b"Exif\0\0", start):
            metadata.read_exif(content[start:stop])
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/", start):
            metadata.read_xmp(content[start:stop])
        elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0", start):
            profile[content[start + 12]], parts = content[start + 14 : stop], content[start + 13]
        elif marker == 0xE2 and content.startswith(b"MPF\0", start):
            frames = _frames_of_mpo(content[start + 4 : stop])
        elif marker == 0xED:
            metadata.author |= IPTC_AUTHOR in content[start:stop]
        elif marker == 0xDA:
            scan = stop
            break
    if frame is None or not scan:
        raise ValueError("it ends before the first scan")
    if profile:
        if sorted(profile) == list(range(1, parts + 1)):
            metadata.icc = b"".join(profile[part] for part in sorted(profile))
        else:
            metadata.remarks.append("broken ICC profile: parts are missing")
    precision, height, width, channels = frame
    return JpegHeader(width, height, channels, precision, progressive, frames, quality, sampling, scan, metadata)


def jpeg_end(content: bytes, scan: int) -> int:
    """Where the JPEG whose first scan's data starts at ``scan`` ends; its length when nothing marks the end.

    What ends as a JPEG does is taken for one: a second picture behind the first is not looked for.
    """
    if content.endswith(b"\xff\xd9"):
        return len(content)
    marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
    place = scan
    while found := marker.search(content, place):
        kind = content[found.start() + 1]
        if kind == 0xD9:
            return found.end()
        place = found.end()
        if kind != 0x01:  # tables between the scans may contain anything
            place += int.from_bytes(content[place : place + 2], "big")
    return len(content)


def jpeg_without_metadata(content: bytes) -> bytes:
    """The same JPEG without its applications' segments and comments, but for Adobe's, which tells the colour space."""
    kept = [b"\xff\xd8"]
    for marker, start, stop in _segments(content):
        adobe = marker == 0xEE and content.startswith(b"Adobe", start) and stop - start == 12
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or adobe:
            kept.append(bytes((0xFF, marker)) + content[start - 2 : stop])
        if marker == 0xDA:
            kept.append(content[stop:])
            break
    return b"".join(kept)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start and stop of the payload) of a JPEG up to the first scan's header."""
    place, size = 2, len(content)
    while True:
        place = content.find(b"\xff", place)
        if place < 0:
            return
        while place < size and content[place] == 0xFF:  # any number may come before the marker
            place += 1
        if place + 3 > size:
            return
        marker = content[place]
        place += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these have no payload
            continue
        stop = place + int.from_bytes(content[place : place + 2], "big")
        if marker == 0xD9 or stop < place + 2 or stop > size:
            return
        yield marker, place + 2, stop
        if marker == 0xDA:
            return
        place = stop


def _quality(table: bytes) -> int | None:
    """The setting of the Independent JPEG Group's encoder that makes tables this coarse."""
    if len(table) < 64:
        return None
    scale = 100 * sum(table[:8]) / STANDARD_STEPS
    return max(1, round((200 - scale) / 2 if scale <= 100 else 5000 / scale))


def _frames_of_mpo(content: bytes) -> int:
    """How many pictures a phone's multi-picture file has (CIPA DC-007, 5.2.3): previews, depth, gain maps."""
    try:
        return max(1, tiff_tags(content).get(0xB001, 1))
    except (struct.error, ValueError):
        return 1


@dataclass
class PngHeader:
    """A PNG's size, depth in bits, colour type, and its bytes without text: what is to be decoded."""

    width: int
    height: int
    depth: int
    colour: int
    decodable: bytes
    metadata: Metadata


def png_header(content: bytes) -> PngHeader:
    """Walk over a PNG's chunks, checking each; raises ``ValueError`` when one that counts is broken or missing.

    Text chunks are looked at and left out, so that megabytes of compressed text are never unpacked.
    """
    metadata = Metadata()
    kept, place, ended, data = [PNG_SIGNATURE], 8, False, False
    width = height = depth = colour = 0
    while place < len(content) and not ended:
        if place + 12 > len(content):
            raise ValueError("it ends in the middle of a chunk")
        size, name = struct.unpack_from(">I4s", content, place)
        stop = place + 12 + size
        if stop > len(content):
            raise ValueError(f"it ends in the middle of the chunk {name.decode('latin-1')!r}")
        body = memoryview(content)[place + 8 : stop - 4]
        whole = zlib.crc32(memoryview(content)[place + 4 : stop - 4]) == int.from_bytes(content[stop - 4 : stop], "big")
        critical = not name[0] & 0x20 or name in (b"tRNS", b"acTL", b"fcTL", b"fdAT")
        if critical and not whole:
            raise ValueError(f"the check sum of the chunk {name.decode('latin-1')!r} is wrong")
        if name == b"IHDR" and size >= 13:
            width, height, depth, colour = struct.unpack_from(">IIBB", body)
        elif name in PNG_TEXT:
            text = bytes(body[:100_000])
            metadata.read_xmp(text)
            metadata.author |= text.lower().startswith((b"author\0", b"artist\0", b"copyright\0"))
        elif name == b"eXIf" and whole:
            metadata.read_exif(bytes(body))
        data |= name == b"IDAT"
        ended = name == b"IEND"
        if not whole:
            metadata.remarks.append(f"broken chunk: {name.decode('latin-1')!r}")
        elif name not in (*PNG_TEXT, b"eXIf"):
            kept.append(content[place:stop])
        place = stop
    if not (ended and data):
        raise ValueError("it ends before its last chunk")
    if place < len(content):
        metadata.remarks.append(f"trailing bytes: {len(content) - place:,} after the picture")
    return PngHeader(width, height, depth, colour, b"".join(kept), metadata)
