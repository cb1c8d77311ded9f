"""Whatever bytes a file holds, reading it gives an image or one sentence, and never anything else."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Picture

from nuxel.errors import NuxelError
from nuxel.image.image import Image
from nuxel.image.read import describe_image, read_image

RGB = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
STACK = np.random.default_rng(1).integers(0, 60_000, (2, 3, 16, 20), dtype=np.uint16)


def picture(form: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(RGB).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


FILES = {
    "png": picture("png", dpi=(100, 100)),
    "png 16 bit": imagecodecs.png_encode(RGB.astype(np.uint16) * 257),
    "png palette": picture("png", "P"),
    "jpeg": picture("jpeg"),
    "jpeg progressive": picture("jpeg", progressive=True),
    "jpeg cmyk": picture("jpeg", "CMYK"),
    "bmp": picture("bmp"),
    "bmp palette": picture("bmp", "P"),
    "tiff": tiff(RGB, photometric="rgb"),
    "tiff palette": picture("tiff", "P"),
    "tiff jpeg": tiff(RGB, photometric="rgb", compression="jpeg"),
    "tiff tiles": tiff(RGB, photometric="rgb", tile=(16, 16), compression="deflate", predictor=True),
    "tiff lzw strips": tiff(RGB, photometric="rgb", rowsperstrip=4, compression="lzw"),
    "tiff zstd": tiff(RGB, photometric="rgb", compression="zstd"),
    "tiff floats": tiff(RGB[:, :, 0].astype(np.float32), compression="deflate", predictor=3),
    "bigtiff": tiff(RGB, photometric="rgb", bigtiff=True),
    "imagej": tiff(STACK, imagej=True, metadata={"axes": "ZCYX", "unit": "um"}, resolution=(4, 4)),
    "ome": tiff(STACK, ome=True, metadata={"axes": "ZCYX"}),
}
CHOICES: dict[str, dict[str, Any]] = {name: {"z": "max", "channel": 1} for name in ("imagej", "ome")}


def read_bytes(data: bytes, **choice: Any) -> Image | None:
    """The image, or ``None`` when it was refused in one sentence; any other exception or warning passes."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder, "a.tif")
        path.write_bytes(data)
        image = None
        for function, arguments in ((describe_image, {}), (read_image, choice)):
            try:
                image = function(path, **arguments)  # type: ignore[operator]
                sentence = str(path)
            except NuxelError as error:
                image, sentence = None, str(error)
            assert sentence.startswith(str(path))
            assert "\n" not in sentence
            assert len(sentence) < 1000
    return image if isinstance(image, Image) else None


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0", b"BM", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]),
)
@settings(max_examples=150)
def test_random_bytes_are_refused_or_read(data: bytes, magic: bytes) -> None:
    image = read_bytes(magic + data)
    assert image is None or image.pixels.ndim == 3


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_never_read_as_another_picture(name: str) -> None:
    whole = read_bytes(FILES[name], **CHOICES.get(name, {}))
    assert whole is not None
    size = len(FILES[name])
    for length in {*range(0, size, max(1, size // 25)), *range(size - 6, size)}:
        image = read_bytes(FILES[name][:length], **CHOICES.get(name, {}))
        if image is not None:
            # what is cut off was no pixel: a checksum, a page table that is told elsewhere
            assert length > 0.9 * size
            np.testing.assert_array_equal(image.pixels, whole.pixels)


@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from([80, 400, 10**6]),
)
@settings(max_examples=300)
def test_flipped_bytes_give_an_image_or_a_sentence(
    name: str, flips: list[tuple[float, int]], reach: int
) -> None:
    data = bytearray(FILES[name])
    for place, value in flips:
        data[int(place * min(reach, len(data)))] = value
    image = read_bytes(bytes(data), **CHOICES.get(name, {}))
    assert image is None or image.pixels.shape[2] in (1, 3)


SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(
    hnp.arrays(
        st.sampled_from(
            [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.float32, np.float64]
        ),
        SHAPES,
    ),
    st.sampled_from([None, "lzw", "deflate", "zstd", "packbits"]),
    st.sampled_from([{}, {"metadata": None}, {"bigtiff": True}, {"byteorder": ">"}]),
)
@settings(max_examples=100)
def test_tiff_round_trip(pixels: np.ndarray, compression: str | None, options: dict[str, Any]) -> None:
    image = read_bytes(tiff(pixels, compression=compression, photometric="minisblack", **options))
    assert image is not None
    assert image.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(image.pixels[:, :, 0], pixels)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    )
)
@settings(max_examples=60)
def test_png_round_trip(pixels: np.ndarray) -> None:
    image = read_bytes(imagecodecs.png_encode(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    assert image is not None
    np.testing.assert_array_equal(image.pixels, pixels[:, :, : 3 if pixels.shape[2] >= 3 else 1])


@given(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=3), st.data())
@settings(max_examples=50)
def test_each_plane_of_a_hyperstack_is_the_one_that_was_written(
    lengths: tuple[int, ...], data: st.DataObject
) -> None:
    stack = np.arange(np.prod(lengths) * 35, dtype=np.uint16).reshape(*lengths, 5, 7)
    form = data.draw(st.sampled_from(["ome", "imagej"]))
    t, z, channel = (data.draw(st.integers(0, length - 1)) for length in lengths)
    written = tiff(stack, photometric="minisblack", metadata={"axes": "TZCYX"}, **{form: True})
    image = read_bytes(written, t=t, z=z, channel=channel)
    assert image is not None
    np.testing.assert_array_equal(image.pixels[:, :, 0], stack[t, z, channel])
