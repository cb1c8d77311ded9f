import io
import zlib

import numpy as np
import pytest
from PIL import Image

from nuxel.export import png
from nuxel.export.png import encode_png


def decoded(data):
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (37, 53)])
def test_every_pixel_comes_back(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(encode_png(image)), image)


def test_differences_wrap_around():
    image = np.array([[[255, 0, 128]], [[0, 255, 127]], [[255, 0, 128]]], np.uint8)
    np.testing.assert_array_equal(decoded(encode_png(image)), image)


def test_data_may_span_several_chunks(monkeypatch):
    monkeypatch.setattr(png, "_CHUNK_BYTES", 100)
    image = np.random.default_rng(1).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    data = encode_png(image)
    assert data.count(b"IDAT") > 5
    np.testing.assert_array_equal(decoded(data), image)


def test_every_chunk_has_its_checksum():
    data = encode_png(np.zeros((4, 5, 3), np.uint8))
    place, kinds = 8, []
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + size]
        assert zlib.crc32(body) == int.from_bytes(data[place + 8 + size : place + 12 + size], "big")
        kinds.append(body[:4])
        place += 12 + size
    assert kinds == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]


def test_smooth_images_become_small():
    image = np.zeros((200, 200, 3), np.uint8) + np.arange(200, dtype=np.uint8)[:, None, None]
    assert len(encode_png(image)) < image.nbytes / 50


def test_a_view_is_encoded_as_it_looks():
    image = np.random.default_rng(2).integers(0, 256, (8, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(encode_png(image[::-1, ::2])), image[::-1, ::2])
