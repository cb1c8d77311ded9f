"""PNG, JPEG and BMP: exact pixels, whatever the kind."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Picture

from nuxel.errors import NuxelError
from nuxel.image.read import describe_image, read_image

SHAPE = (7, 11)


@pytest.fixture
def colour() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_png_keeps_its_bits_and_drops_alpha(tmp_path: Path, dtype: type, samples: int) -> None:
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (*SHAPE, samples), dtype=dtype)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels[:, :, 0] if samples == 1 else pixels))
    image = read_image(path)
    expected = pixels[:, :, :3] if samples >= 3 else pixels[:, :, :1]
    assert image.pixels.dtype == dtype
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.channel_names == (("red", "green", "blue") if samples >= 3 else ("grey",))
    assert describe_image(path)["dtype"] == np.dtype(dtype).name
    assert describe_image(path)["shape"] == list(expected.shape if samples >= 3 else expected.shape[:2])


@pytest.mark.parametrize("form", ["png", "bmp"])
@pytest.mark.parametrize("colours", [2, 9, 256])
def test_palette_is_looked_up(tmp_path: Path, colour: np.ndarray, form: str, colours: int) -> None:
    picture = Picture.fromarray(colour).quantize(colours)
    picture.save(tmp_path / f"a.{form}")
    np.testing.assert_array_equal(
        read_image(tmp_path / f"a.{form}").pixels, np.asarray(picture.convert("RGB"))
    )


def test_png_palette_with_transparency(tmp_path: Path, colour: np.ndarray) -> None:
    picture = Picture.fromarray(colour).quantize(5)
    picture.save(tmp_path / "a.png", transparency=b"\x00\x80\xff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("form", ["png", "bmp"])
def test_one_bit_becomes_black_and_white(tmp_path: Path, colour: np.ndarray, form: str) -> None:
    bits = colour[:, :, 0] > 127
    Picture.fromarray(bits).save(tmp_path / f"a.{form}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{form}").pixels[:, :, 0], bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_bmp(tmp_path: Path, colour: np.ndarray, mode: str) -> None:
    picture = Picture.fromarray(colour).convert(mode)
    picture.save(tmp_path / "a.bmp")
    expected = np.asarray(picture)[:, :, None] if mode == "L" else colour
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp").pixels, expected)
    assert describe_image(tmp_path / "a.bmp")["format"] == "BMP"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_agrees_with_pillow(tmp_path: Path, colour: np.ndarray, mode: str) -> None:
    path = tmp_path / "a.jpg"
    Picture.fromarray(colour).convert(mode).save(path, quality=95)
    with Picture.open(path) as picture:
        expected = np.asarray(picture.convert("L" if mode == "L" else "RGB")).reshape(*SHAPE, -1)
    np.testing.assert_array_equal(read_image(path).pixels, expected)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, np.fliplr),
        (3, lambda upright: np.rot90(upright, 2)),
        (4, np.flipud),
        (5, lambda upright: np.swapaxes(upright, 0, 1)),
        (6, lambda upright: np.rot90(upright, 1)),
        (7, lambda upright: np.swapaxes(np.rot90(upright, 2), 0, 1)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_jpeg_is_turned_upright(tmp_path: Path, orientation: int, stored: object) -> None:
    upright = np.zeros((16, 40, 3), np.uint8)
    upright[:8, :8] = 250
    exif = Picture.Exif()
    exif[0x0112] = orientation
    Picture.fromarray(np.ascontiguousarray(stored(upright))).save(tmp_path / "a.jpg", quality=100, exif=exif)  # type: ignore[operator]
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels.shape == upright.shape
    np.testing.assert_allclose(image.pixels.astype(int), upright, atol=12)
    assert describe_image(tmp_path / "a.jpg")["shape"] == [16, 40, 3]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("form", ["png", "jpg", "bmp"])
def test_single_rows_columns_and_pixels(tmp_path: Path, shape: tuple[int, int], form: str) -> None:
    Picture.fromarray(np.full(shape, 77, np.uint8)).save(tmp_path / f"a.{form}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{form}").pixels, np.full((*shape, 1), 77))


@pytest.mark.parametrize(
    ("form", "dpi", "side_um"),
    [("png", 72, None), ("png", 50800, 0.5), ("jpg", 300, None), ("jpg", 25400, 1.0)],
)
def test_dots_per_inch_count_where_they_are_credible(
    tmp_path: Path, colour: np.ndarray, form: str, dpi: int, side_um: float | None
) -> None:
    Picture.fromarray(colour).save(tmp_path / f"a.{form}", dpi=(dpi, dpi))
    found = read_image(tmp_path / f"a.{form}").pixel_size_um
    assert found == (None if side_um is None else pytest.approx(side_um, rel=1e-3))


def _saved(colour: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(colour).save(buffer, form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "options"), [("png", {}), ("jpeg", {}), ("jpeg", {"progressive": True}), ("bmp", {})]
)
def test_every_truncation_is_an_error(tmp_path: Path, colour: np.ndarray, form: str, options: dict) -> None:
    # eight columns, so that the rows of a BMP end in pixels and not in padding
    whole = _saved(colour[:, :8], form, **options)
    path = tmp_path / "a.png"
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(NuxelError, match=r"a\.png"):
            read_image(path)


def test_png_that_claims_too_many_pixels(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = (
        struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IEND\xaeB`\x82"
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(NuxelError, match="100000 x 100000 pixels, more than the limit"):
        read_image(tmp_path / "bomb.png")
    with pytest.raises(NuxelError, match="limit"):
        describe_image(tmp_path / "bomb.png")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_png_with_chunks_that_libpng_warns_about(
    tmp_path: Path, colour: np.ndarray, capfd: pytest.CaptureFixture
) -> None:
    data = _saved(colour, "png")
    extra = (
        chunk(b"iCCP", b"wrong\0\0" + zlib.compress(b"no profile"))
        + chunk(b"gAMA", b"\0\0\0\0")
        + chunk(b"tRNS", b"\0")
    )
    (tmp_path / "a.png").write_bytes(data[:33] + extra + data[33:] + b"something after the end")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, colour)
    assert capfd.readouterr() == ("", "")


def test_damaged_png_is_refused_without_a_word_from_libpng(
    tmp_path: Path, colour: np.ndarray, capfd: pytest.CaptureFixture
) -> None:
    data = _saved(colour, "png")
    for place in range(8, len(data), 2):
        (tmp_path / "a.png").write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(NuxelError, match=r"damaged|cut short"):
            read_image(tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("per_x", "per_y", "unit", "side_um"),
    [
        (2_000_000, 2_000_000, 1, 0.5),
        (2_000_000, 1_000_000, 1, None),
        (2_000_000, 2_000_000, 0, None),
        (0, 9, 1, None),
        (9, 0, 1, None),
    ],
)
def test_physical_size_of_png(
    tmp_path: Path, colour: np.ndarray, per_x: int, per_y: int, unit: int, side_um: float | None
) -> None:
    data = _saved(colour, "png")
    (tmp_path / "a.png").write_bytes(
        data[:33] + chunk(b"pHYs", struct.pack(">IIB", per_x, per_y, unit)) + data[33:]
    )
    assert read_image(tmp_path / "a.png").pixel_size_um == side_um


def test_png_without_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0IEND\xaeB`\x82")
    with pytest.raises(NuxelError, match="no PNG header"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(60000, 60000), (20000, 30000)])
def test_jpeg_that_claims_too_many_pixels(tmp_path: Path, colour: np.ndarray, size: tuple[int, int]) -> None:
    data = bytearray(_saved(colour, "jpeg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", *size)
    (tmp_path / "bomb.jpg").write_bytes(data)
    with pytest.raises(NuxelError, match=f"{size[0]} x {size[1]} pixels"):
        read_image(tmp_path / "bomb.jpg")


def test_bmp_that_claims_too_many_pixels(tmp_path: Path, colour: np.ndarray) -> None:
    data = bytearray(_saved(colour, "bmp"))
    data[18:26] = struct.pack("<ii", 40000, 40000)
    (tmp_path / "bomb.bmp").write_bytes(data)
    with pytest.raises(NuxelError, match="cannot hold"):
        read_image(tmp_path / "bomb.bmp")


def test_interlaced_png(tmp_path: Path, colour: np.ndarray) -> None:
    """Adam7, which no encoder at hand writes: seven passes, each a small image of its own."""
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    raw = b""
    for y, x, dy, dx in passes:
        part = colour[y::dy, x::dx]
        raw += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SHAPE[1], SHAPE[0], 8, 2, 0, 0, 1))
    data = header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, colour)


def test_a_plain_picture_is_no_bomb(tmp_path: Path) -> None:
    Picture.fromarray(np.zeros((2000, 2000), np.uint8)).save(tmp_path / "a.jpg", quality=30)
    assert 4e6 / (tmp_path / "a.jpg").stat().st_size > 50
    assert read_image(tmp_path / "a.jpg").pixels.shape == (2000, 2000, 1)


def test_dots_that_are_not_square_are_no_pixel_size(tmp_path: Path) -> None:
    Picture.fromarray(np.zeros((9, 13), np.uint8)).save(tmp_path / "a.jpg", dpi=(25400, 12700))
    assert read_image(tmp_path / "a.jpg").pixel_size_um is None
    Picture.fromarray(np.zeros((9, 13), np.uint8)).save(tmp_path / "b.jpg", dpi=(25400, 25400))
    assert read_image(tmp_path / "b.jpg").pixel_size_um == pytest.approx(1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_every_kind(tmp_path: Path, mode: str) -> None:
    picture = Picture.fromarray(np.random.default_rng(0).integers(0, 255, (13, 17, 4)).astype(np.uint8))
    picture = (
        Picture.fromarray(np.arange(221, dtype=np.uint16).reshape(13, 17) * 250)
        if mode == "I;16"
        else picture
    )
    picture = picture if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png").pixels
    wanted = np.asarray(
        picture if mode == "I;16" else picture.convert("RGB" if mode in ("P", "RGB", "RGBA") else "L")
    )
    np.testing.assert_array_equal(read.squeeze(), wanted)


def test_a_damaged_png_gives_its_memory_back(tmp_path: Path) -> None:
    """imagecodecs loses the image that it makes itself when decoding fails."""
    whole = _saved(np.zeros((1500, 1500, 3), np.uint8), "png")
    place = whole.index(b"IDAT")
    data = zlib.compress(bytes(1000))
    chunk = b"IDAT" + data
    short = whole[: place - 4] + struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = b"IEND"
    (tmp_path / "a.png").write_bytes(short + struct.pack(">I", 0) + end + struct.pack(">I", zlib.crc32(end)))
    held = []
    for _ in range(2):
        for _ in range(15):
            with pytest.raises(NuxelError):
                read_image(tmp_path / "a.png")
        held.append(_resident())
    assert held[1] - held[0] < 40e6  # each leak would be 6.75 MB


def _resident() -> float:
    if not Path("/proc/self/statm").exists():
        pytest.skip("the memory of a process is not told here")
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096.0


def _with_chunks(path: Path, chunks: list[tuple[bytes, bytes]]) -> Path:
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data)
    return path


HEADER = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0)
ROWS = zlib.compress(bytes([0, 1, 2, 3, 0, 4, 5, 6]))


def test_a_short_resolution_chunk_says_nothing(tmp_path: Path) -> None:
    chunks = [(b"IHDR", HEADER), (b"pHYs", b"\0\0"), (b"IDAT", ROWS), (b"IEND", b"")]
    image = read_image(_with_chunks(tmp_path / "a.png", chunks))
    assert image.pixels[..., 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert image.pixel_size_um is None


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([(b"IHDR", HEADER), (b"IEND", b"")], "it holds no pixels"),
        (
            [(b"IHDR", HEADER[:9] + b"\x05" + HEADER[10:]), (b"IDAT", ROWS), (b"IEND", b"")],
            "of kind 5, which no PNG has",
        ),
    ],
)
def test_png_headers_that_cannot_be(tmp_path: Path, chunks: list[tuple[bytes, bytes]], words: str) -> None:
    with pytest.raises(NuxelError, match=words):
        read_image(_with_chunks(tmp_path / "a.png", chunks))


def test_an_interlaced_png_says_nothing_on_the_screen(
    tmp_path: Path, colour: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    test_interlaced_png(tmp_path, colour)
    assert capfd.readouterr() == ("", "")
