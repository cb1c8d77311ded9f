"""PNG, JPEG and BMP: one plane, grey or colour."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from nuxel.errors import NuxelError
from nuxel.image.pixel_size import square_pixel
from nuxel.image.reader import COLOUR_NAMES, Layout, refuse_too_large

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"

_ORIENTATION = 0x0112
_UM_PER_INCH, _UM_PER_METRE = 25400.0, 1e6

_PIXELS_PER_BYTE = 1024
"""More than JPEG (512) and run-length BMP (128) can pack into a byte: beyond it the header lies."""

_PNG_GREY = (0, 4)
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""By the kind of colours: grey, RGB, palette, and grey and RGB with alpha."""
_PHYSICAL_BYTES = 21
_PNG_METRE = 1
_PNG_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def recognises(head: bytes) -> bool:
    """See `nuxel.image.reader.Reader`."""
    return head.startswith((_PNG, _JPEG, _BMP))


@contextmanager
def open_source(path: Path) -> Iterator[RasterSource]:
    """See `nuxel.image.reader.Reader`."""
    data = path.read_bytes()
    # Pillow's classes, not PIL.Image.open: its size limit is a global that belongs to the user's program
    if data.startswith(_PNG):
        yield _png(data)
    elif data.startswith(_JPEG):
        yield _pillow("JPEG", data, JpegImageFile(io.BytesIO(data)))
    else:
        yield _pillow("BMP", data, BmpImageFile(io.BytesIO(data)))


@dataclass(frozen=True)
class RasterSource:
    """An opened PNG, JPEG or BMP file."""

    layout: Layout
    decode: Callable[[], NDArray[Any]]

    def plane(self, index: Sequence[int]) -> NDArray[Any]:
        """``(H, W, 1)`` or ``(H, W, 3)``; ``index`` is empty, since there is one plane."""
        assert not index
        return self.decode()


def _layout(form: str, size: tuple[int, int], dtype: str, colour: bool, side_um: float | None) -> Layout:
    if colour:
        return Layout(form, "YXS", (*size, 3), np.dtype(dtype), COLOUR_NAMES, side_um)
    return Layout(form, "YX", size, np.dtype(dtype), ("grey",), side_um)


def _without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    """``(H, W, 1 or 3)`` of grey, grey + alpha, RGB or RGBA."""
    if pixels.ndim == 2:
        return pixels[:, :, None]
    return pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, :1]


def _png(data: bytes) -> RasterSource:
    """PNG through libpng, because Pillow cuts 16-bit colour down to 8 bits."""
    chunks = list(_png_chunks(data))
    if chunks[0][0] != b"IHDR":
        raise NuxelError("it has no PNG header")
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", chunks[0][1], 8)
    refuse_too_large(height, width, 8)
    if kind not in _PNG_SAMPLES:
        raise NuxelError(f"its header says that its colours are of kind {kind}, which no PNG has")
    if all(name != b"IDAT" for name, _ in chunks):
        raise NuxelError("it holds no pixels")
    # without the other chunks, about which libpng prints warnings; the transparent colour goes with them
    needed = _PNG + b"".join(chunk for name, chunk in chunks if name in _PNG_NEEDED)
    physical = [chunk for name, chunk in chunks if name == b"pHYs"]
    side_um = _png_side_um(physical[0]) if physical else None
    layout = _layout("PNG", (height, width), "u2" if bits == 16 else "u1", kind not in _PNG_GREY, side_um)

    def decode() -> NDArray[Any]:
        if interlaced and bits <= 8:  # of which libpng, as imagecodecs calls it, warns on stderr
            picture = PngImageFile(io.BytesIO(needed))
            return _without_alpha(np.asarray(picture.convert("RGB" if layout.is_colour else "L")))
        samples = _PNG_SAMPLES[kind]
        # given, because imagecodecs loses what it makes itself where decoding fails
        out = np.empty((height, width, samples) if samples > 1 else (height, width), layout.dtype)
        return _without_alpha(imagecodecs.png_decode(needed, out=out))

    return RasterSource(layout, decode)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and the whole of each chunk, their checksums verified; the last one is IEND."""
    at, name = len(_PNG), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at) if len(data) >= at + 12 else (len(data), b"")
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length:
            raise NuxelError("it is cut short")
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise NuxelError(f"it is damaged, as the checksum of its {name!r} tells")
        yield name, chunk
        at += len(chunk)


def _png_side_um(physical: bytes) -> float | None:
    if len(physical) != _PHYSICAL_BYTES:
        return None
    per_x, per_y, unit = struct.unpack_from(">IIB", physical, 8)
    if unit != _PNG_METRE or not (per_x and per_y):
        return None
    return square_pixel(_UM_PER_METRE / per_x, _UM_PER_METRE / per_y)


def _pillow(form: str, data: bytes, picture: ImageFile.ImageFile) -> RasterSource:
    """JPEG and BMP: Pillow knows CMYK and orientations, and tells a truncated file from a whole one."""
    width, height = picture.size
    if height * width > _PIXELS_PER_BYTE * len(data):
        raise NuxelError(
            f"its header says {height} x {width} pixels, which its {len(data)} bytes cannot hold"
        )
    refuse_too_large(height, width, 12)
    if form == "JPEG" and picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
        height, width = width, height
    colour = picture.mode not in ("1", "L")

    def decode() -> NDArray[Any]:
        picture.load()
        turned = form == "JPEG" and picture.getexif().get(_ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(picture) if turned else picture  # copies in any case
        wanted = "RGB" if colour else "L"
        return _without_alpha(np.asarray(upright if upright.mode == wanted else upright.convert(wanted)))

    return RasterSource(_layout(form, (height, width), "u1", colour, _side_um(picture)), decode)


def _side_um(picture: ImageFile.ImageFile) -> float | None:
    dpi = picture.info.get("dpi")
    if not dpi or not all(value > 0 for value in dpi):
        return None
    return square_pixel(_UM_PER_INCH / dpi[0], _UM_PER_INCH / dpi[1])
