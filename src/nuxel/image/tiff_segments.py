"""What the strips and tiles of a TIFF say of themselves, looked at before a codec believes it."""

from __future__ import annotations

import math
import struct

import tifffile

from nuxel.errors import NuxelError

_LZW, _OLD_JPEG, _JPEG = 5, 6, 7
_CLEAR, _FIRST_FREE = 256, 258
_SPARE_PIXELS = 1 << 24
"""A segment may be larger than its image, which small images in large tiles are."""
_SIZES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
"""JPEG's markers of a frame, which begins with its size."""
_HEAD = 4096


def refuse_bad_segments(page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage) -> None:
    """Raise NuxelError where a damaged segment would take far more memory than its image, or end the process.

    imagecodecs' decoder of LZW reads beyond its table where the first code is none that can be known yet.
    """
    area = keyframe.imagewidth * keyframe.imagelength
    if keyframe.is_tiled and math.prod((keyframe.tilewidth, keyframe.tilelength)) > 4 * area + _SPARE_PIXELS:
        raise NuxelError(
            f"it is damaged: its tiles are {keyframe.tilelength} x {keyframe.tilewidth} pixels, of an image of "
            f"{keyframe.imagelength} x {keyframe.imagewidth}"
        )
    check = {_LZW: _refuse_bad_lzw, _OLD_JPEG: _refuse_large_jpeg, _JPEG: _refuse_large_jpeg}.get(
        int(keyframe.compression)
    )
    if check is None:
        return
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count:
            file.seek(offset)
            check(file.read(min(count, _HEAD)), area)


def _refuse_bad_lzw(head: bytes, _: int) -> None:
    if len(head) < 3:
        return
    codes = int.from_bytes(head[:3], "big") >> 6
    if codes >> 9 == _CLEAR and codes & 511 >= _FIRST_FREE:
        raise NuxelError("it is damaged: its LZW data do not begin as such do")


def _refuse_large_jpeg(head: bytes, area: int) -> None:
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if marker in _SIZES:
            height, width = struct.unpack_from(">HH", head, place + 5)
            if height * width > 4 * area + _SPARE_PIXELS:
                raise NuxelError(f"it is damaged: a part of it says that it is {height} x {width} pixels")
            return
        place += 2 + length
