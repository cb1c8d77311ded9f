"""TIFF in all its dialects: exact pixels, axes, names and pixel sizes."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from nuxel.errors import NuxelError
from nuxel.image.read import describe_image, files_of, read_image

H, W = 21, 34
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(pixels: np.ndarray, name: str = "a.tif", **options: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            tifffile.imwrite(tmp_path / name, pixels, **options)
        return tmp_path / name

    return write


def noise(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 128, shape)
    return values.astype(dtype) if np.dtype(dtype) != bool else values > 63


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?"])
def test_every_dtype_is_kept(write: Write, dtype: str, byteorder: str) -> None:
    pixels = noise((H, W), dtype)
    if pixels.dtype.kind in "if":
        pixels[0] = -pixels[0]
    path = write(pixels, byteorder=byteorder)
    image = read_image(path)
    assert image.pixels.dtype == np.dtype(dtype)
    assert image.pixels.dtype.isnative
    assert image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(image.pixels, pixels[:, :, None])
    assert image.channel_names == ("grey",)
    assert describe_image(path)["dtype"] == np.dtype(dtype).name


def test_nan_and_infinity_pass(write: Write) -> None:
    pixels = np.array([[np.nan, np.inf], [-np.inf, 1.5]], np.float32)
    np.testing.assert_array_equal(read_image(write(pixels)).pixels[:, :, 0], pixels)


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_complex_numbers_are_refused(write: Write, dtype: str) -> None:
    with pytest.raises(NuxelError, match="complex"):
        read_image(write(np.zeros((H, W), dtype)))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "deflate", "predictor": True},
        {"compression": "zstd"},
        {"compression": "packbits"},
        {"compression": "lzma"},
        {"compression": "png"},
        {"compression": "jpeg2000"},
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "lzw", "predictor": True},
        {"rowsperstrip": 4},
        {"rowsperstrip": 5, "compression": "deflate"},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": (16, 16), "compression": "zstd"},
        {"bigtiff": True},
        {"bigtiff": True, "byteorder": ">"},
        {"metadata": None},
        {"ome": True},
        {"imagej": True},
    ],
)
def test_colour_in_every_arrangement(write: Write, options: dict) -> None:
    pixels = noise((H, W, 3))
    planar = options.get("planarconfig") == "separate"
    path = write(np.moveaxis(pixels, -1, 0) if planar else pixels, photometric="rgb", **options)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.channel_names == ("red", "green", "blue")
    described = describe_image(path)
    assert (described["axes"], described["shape"]) == ("YXS", [H, W, 3])


def test_jpeg_and_ycbcr_become_rgb(write: Write, tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64]
    pixels = np.stack([y * 3, x * 2, np.full_like(x, 60)], -1).astype(np.uint8)
    ycbcr = write(pixels, photometric="rgb", compression="jpeg", compressionargs={"level": 95})
    with tifffile.TiffFile(ycbcr) as tif:
        assert tif.pages[0].photometric.name == "YCBCR"
    np.testing.assert_allclose(read_image(ycbcr).pixels.astype(int), pixels, atol=12)
    Picture.fromarray(pixels).save(tmp_path / "rgb.tif", compression="jpeg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "rgb.tif").pixels.astype(int), pixels, atol=12)


def test_alpha_is_dropped(write: Write) -> None:
    pixels = noise((H, W, 4))
    image = read_image(write(pixels, photometric="rgb", extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(image.pixels, pixels[:, :, :3])
    grey = read_image(
        write(pixels[:, :, :2], photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"])
    )
    np.testing.assert_array_equal(grey.pixels, pixels[:, :, :1])


def test_five_samples_are_channels_even_where_the_first_are_called_rgb(write: Write) -> None:
    pixels = noise((H, W, 5))
    path = write(pixels, photometric="rgb", extrasamples=[0, 0])
    assert describe_image(path)["axes"] == "CYX"
    np.testing.assert_array_equal(read_image(path, channel=4).pixels, pixels[:, :, 4:])


@pytest.mark.parametrize(("dtype", "top"), [("u1", 255), ("u2", 65535)])
def test_white_is_zero_is_inverted(write: Write, dtype: str, top: int) -> None:
    pixels = noise((H, W), dtype)
    np.testing.assert_array_equal(
        read_image(write(pixels, photometric="miniswhite")).pixels[:, :, 0], top - pixels
    )


def test_white_is_zero_of_signed_numbers(write: Write) -> None:
    pixels = np.array([[-128, -1, 0, 127]], np.int8)
    found = read_image(write(pixels, photometric="miniswhite")).pixels
    assert found.ravel().tolist() == [127, 0, -1, -128]


@pytest.mark.parametrize("software", ["scanner", "tifffile.py"])
def test_one_bit_white_is_zero_unless_numpy_wrote_it(write: Write, software: str) -> None:
    """tifffile stores True as 1 under "white is zero", and means bright by it."""
    bits = noise((H, W), bool)
    path = write(bits, photometric="miniswhite", software=software, metadata=None)
    found = read_image(path).pixels[:, :, 0]
    if software == "scanner":
        with Picture.open(path) as picture:
            np.testing.assert_array_equal(found, np.asarray(picture))
    np.testing.assert_array_equal(found, ~bits if software == "scanner" else bits)
    assert found.dtype == bool


@pytest.mark.parametrize("compression", ["group4", "raw"])
def test_one_bit_of_other_programs(tmp_path: Path, compression: str) -> None:
    bits = noise((H, W), bool)
    Picture.fromarray(bits).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels[:, :, 0], bits)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_palette_is_looked_up(tmp_path: Path, compression: str) -> None:
    picture = Picture.fromarray(noise((H, W, 3))).quantize(7)
    picture.save(tmp_path / "a.tif", compression=compression)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, np.asarray(picture.convert("RGB")))
    assert describe_image(tmp_path / "a.tif")["axes"] == "YXS"


def test_palette_of_eight_bits(write: Write) -> None:
    palette = np.tile(np.arange(256, dtype=np.uint16), (3, 1))
    palette[0] = 255 - palette[0]
    image = read_image(write(np.array([[0, 9]], np.uint8), photometric="palette", colormap=palette))
    assert image.pixels.tolist() == [[[255, 0, 0], [246, 9, 9]]]


def test_palette_of_one_bit(write: Write) -> None:
    """tifffile reads such numbers as booleans, which must not choose colours as a mask."""
    palette = np.array([[0, 65535], [256, 32768], [65535, 0]], np.uint16)
    colours = (320, "H", 6, tuple(palette.ravel().tolist()), True)
    path = write(np.array([[False, True, True]]), photometric="minisblack", extratags=[colours])
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["PhotometricInterpretation"].overwrite(3)
    image = read_image(path)
    assert image.pixels.tolist() == [[[0, 1, 255], [255, 128, 0], [255, 128, 0]]]


def test_palette_of_sixteen_bits_keeps_them(write: Write) -> None:
    palette = np.tile(np.arange(65536, dtype=np.uint16), (3, 1))
    palette[0] = palette[0][::-1]
    pixels = np.array([[0, 300, 65535]], np.uint16)
    path = write(pixels, photometric="palette", colormap=palette)
    expected = [[[65535, 0, 0], [65235, 300, 300], [0, 65535, 65535]]]
    assert read_image(path).pixels.tolist() == expected
    assert describe_image(path)["dtype"] == "uint16"


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr"])
def test_other_colour_spaces_are_refused(tmp_path: Path, mode: str) -> None:
    Picture.fromarray(noise((H, W, 3))).convert("RGB").save(tmp_path / "rgb.tif")
    source = Picture.new(mode, (W, H))
    source.save(tmp_path / "a.tif")
    with pytest.raises(NuxelError, match="save it as RGB"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (1, 9, 3), (9, 1, 3), (1, 1, 3)])
@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"ome": True}, {"imagej": True}])
def test_single_rows_columns_and_pixels(write: Write, shape: tuple[int, ...], options: dict) -> None:
    pixels = noise(shape)
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    found = read_image(write(pixels, photometric=photometric, **options)).pixels
    np.testing.assert_array_equal(found, pixels.reshape(*shape[:2], -1))


@pytest.mark.parametrize("options", [{"ome": True}, {"imagej": True}])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_hyperstack_gives_each_plane(write: Write, options: dict, compression: str | None) -> None:
    pixels = noise((2, 3, 4, H, W), np.uint16)
    path = write(pixels, metadata={"axes": "TZCYX"}, compression=compression, **options)
    described = describe_image(path)
    assert (described["axes"], described["shape"]) == ("TZCYX", [2, 3, 4, H, W])
    image = read_image(path, t=1, z=2, channel=3)
    np.testing.assert_array_equal(image.pixels[:, :, 0], pixels[1, 2, 3])
    highest = read_image(path, t=0, z="max", channel=1)
    np.testing.assert_array_equal(highest.pixels[:, :, 0], pixels[0, :, 1].max(axis=0))


def test_axes_of_length_one_are_not_asked_for(write: Write) -> None:
    pixels = noise((1, 1, 2, H, W), np.uint16)
    path = write(pixels, ome=True, metadata={"axes": "TZCYX"})
    assert describe_image(path)["axes"] == "CYX"
    np.testing.assert_array_equal(read_image(path, channel=1).pixels[:, :, 0], pixels[0, 0, 1])
    np.testing.assert_array_equal(read_image(path, channel=1, z=0, t=0).pixels[:, :, 0], pixels[0, 0, 1])


def test_colour_stack(write: Write) -> None:
    pixels = noise((4, H, W, 3))
    path = write(pixels, imagej=True, photometric="rgb", metadata={"axes": "ZYXS"})
    assert describe_image(path)["axes"] == "ZYXS"
    np.testing.assert_array_equal(read_image(path, z=3).pixels, pixels[3])
    np.testing.assert_array_equal(read_image(path, z="max", channel="Blue").pixels, pixels.max(0)[:, :, 2:])


def test_volume_in_one_page(write: Write) -> None:
    pixels = noise((32, H, W))
    path = write(pixels, volumetric=True, tile=(16, 16, 16), photometric="minisblack")
    assert describe_image(path)["axes"] == "ZYX"
    np.testing.assert_array_equal(read_image(path, z=17).pixels[:, :, 0], pixels[17])


def test_max_of_floats_ignores_nan_where_it_can(write: Write) -> None:
    pixels = np.array([[[1, np.nan, np.nan]], [[3, 2, np.nan]]], np.float32)
    path = write(pixels, imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_image(path, z="max").pixels[:, :, 0], [[3, 2, np.nan]])


@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"truncate": True}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_unnamed_stack_needs_one_flag(write: Write, options: dict, byteorder: str) -> None:
    pixels = noise((5, H, W), np.uint16)
    if options.get("truncate") and byteorder == "<":
        options = {**options, "metadata": {"axes": "QYX"}}
    path = write(pixels, photometric="minisblack", byteorder=byteorder, **options)
    with pytest.raises(NuxelError, match=rf"sizes 5 x {H} x {W}.*--channel or --z or --t 0\.\.4"):
        read_image(path)
    for choice in ({"channel": 3}, {"z": 3}, {"t": 3}):
        np.testing.assert_array_equal(read_image(path, **choice).pixels[:, :, 0], pixels[3])
    np.testing.assert_array_equal(read_image(path, z="max").pixels[:, :, 0], pixels.max(axis=0))
    with pytest.raises(NuxelError, match="exactly one"):
        read_image(path, z=0, t=0)


def test_truncated_stack_of_one_page(write: Write) -> None:
    path = write(noise((5, H, W), np.uint16), photometric="minisblack", truncate=True)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(NuxelError, match=r"a\.tif"):
        read_image(path, z=0)


def test_two_unnamed_axes_are_beyond_the_flags(write: Write) -> None:
    path = write(noise((2, 5, H, W)), photometric="minisblack")
    assert describe_image(path)["axes"] == "QQYX"
    with pytest.raises(NuxelError, match="save it as OME-TIFF"):
        read_image(path, z=0, t=0)


def test_pages_of_one_size_are_a_stack_and_of_a_thumbnail_the_largest_counts(tmp_path: Path) -> None:
    frames = noise((3, H, W))
    with tifffile.TiffWriter(tmp_path / "frames.tif") as tif:
        for frame in frames:
            tif.write(frame, photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "frames.tif", t=2).pixels[:, :, 0], frames[2])
    large, small = noise((2 * H, 2 * W)), noise((H, W))
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as tif:
        for frame in (small, large, small):
            tif.write(frame, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "sizes.tif").pixels[:, :, 0], large)


@pytest.mark.parametrize(
    ("second", "more", "kinds"),
    [
        (np.zeros((H, W - 2), np.uint8), {}, "21x34 uint8, 21x32 uint8"),
        (np.zeros((H, W), np.uint16), {}, "21x34 uint8, 21x34 uint16"),
        (np.zeros((H, W, 3), np.uint8), {"photometric": "rgb"}, "21x34 uint8, 21x34x3 uint8"),
    ],
)
@pytest.mark.parametrize("flag", [0, 1])
def test_images_that_are_no_planes_of_one_are_not_chosen_from(
    tmp_path: Path, second: Any, more: dict[str, Any], kinds: str, flag: int
) -> None:
    """Unless the file says of one that it is a reduced view (1)."""
    first = noise((H, W))
    with tifffile.TiffWriter(tmp_path / "two.tif") as tif:
        tif.write(first, photometric="minisblack", metadata=None)
        tif.write(second, **{"photometric": "minisblack", "metadata": None, "subfiletype": flag, **more})
    if flag:
        np.testing.assert_array_equal(read_image(tmp_path / "two.tif").pixels[:, :, 0], first)
    else:
        with pytest.raises(NuxelError, match=rf"two\.tif holds several images .* \({kinds}\): save the one"):
            read_image(tmp_path / "two.tif")


@pytest.mark.parametrize("ome", [False, True])
def test_pyramid_gives_its_largest_level(tmp_path: Path, ome: bool) -> None:
    pixels = noise((64, 64, 3))
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=ome) as tif:
        tif.write(pixels, photometric="rgb", tile=(16, 16), subifds=1)
        tif.write(pixels[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1)
    assert describe_image(tmp_path / "a.tif")["shape"] == [64, 64, 3]
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pixels)


def test_several_ome_images_of_one_size_are_asked_for(tmp_path: Path) -> None:
    frames = noise((2, H, W))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for side, frame in zip((0.5, 0.25), frames, strict=True):
            tif.write(frame, metadata={"PhysicalSizeX": side}, photometric="minisblack")
    with pytest.raises(NuxelError, match="unnamed axis I"):
        read_image(tmp_path / "a.ome.tif")
    image = read_image(tmp_path / "a.ome.tif", t=1)
    np.testing.assert_array_equal(image.pixels[:, :, 0], frames[1])


def test_channel_names_of_ome(write: Write) -> None:
    pixels = noise((3, H, W), np.uint16)
    names = {"Name": ["DAPI", "", "mCherry "]}
    path = write(pixels, ome=True, photometric="minisblack", metadata={"axes": "CYX", "Channel": names})
    assert describe_image(path)["channel_names"] == ["DAPI", "channel 1", "mCherry"]
    image = read_image(path, channel="mcherry")
    np.testing.assert_array_equal(image.pixels[:, :, 0], pixels[2])
    assert image.channel_names == ("mCherry",)
    with pytest.raises(NuxelError, match=r"has no channel 'GFP'.*DAPI, channel 1, mCherry"):
        read_image(path, channel="GFP")
    with pytest.raises(NuxelError, match=r"sizes 3 x .*--channel 0\.\.2 or NAME"):
        read_image(path)


def test_samples_that_are_no_colours_are_channels(write: Write) -> None:
    pixels = noise((H, W, 3))
    path = write(pixels, photometric="minisblack", planarconfig="contig")
    assert describe_image(path)["axes"] == "CYX"
    with pytest.raises(NuxelError, match="--channel"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, channel=1).pixels, pixels[:, :, 1:2])


def test_channel_names_of_imagej(write: Write) -> None:
    pixels = noise((2, H, W), np.uint16)
    path = write(pixels, imagej=True, metadata={"axes": "CYX", "Labels": ["DAPI", "GFP"]})
    assert describe_image(path)["channel_names"] == ["DAPI", "GFP"]
    stack = write(
        noise((2, 2, H, W), np.uint16),
        "b.tif",
        imagej=True,
        metadata={"axes": "ZCYX", "Labels": list("abcd")},
    )
    assert describe_image(stack)["channel_names"] == ["channel 0", "channel 1"]


@pytest.mark.parametrize(
    ("metadata", "side_um"),
    [
        ({"PhysicalSizeX": 0.3}, 0.3),
        ({"PhysicalSizeX": 300, "PhysicalSizeXUnit": "nm"}, 0.3),
        ({"PhysicalSizeX": 0.0003, "PhysicalSizeXUnit": "mm"}, 0.3),
        ({"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.302}, 0.301),
        ({"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.4}, None),
        ({"PhysicalSizeX": 0.3, "PhysicalSizeY": 300, "PhysicalSizeYUnit": "nm"}, 0.3),
        ({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"}, None),
        ({"PhysicalSizeX": 500.0}, None),
        ({}, None),
    ],
)
def test_pixel_size_of_ome(write: Write, metadata: dict, side_um: float | None) -> None:
    path = write(noise((H, W)), ome=True, metadata={"axes": "YX", **metadata})
    expected = None if side_um is None else pytest.approx(side_um)
    assert read_image(path).pixel_size_um == expected
    assert describe_image(path)["pixel_size_um"] == expected


def test_ome_images_that_differ_in_size_are_not_chosen_from(tmp_path: Path) -> None:
    """A field and an overview: the larger one is no better; levels of a pyramid are below their image."""
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(noise((H, W)), metadata={"PhysicalSizeX": 8.0})
        tif.write(noise((4 * H, 4 * W)), metadata={"PhysicalSizeX": 0.5})
    with pytest.raises(NuxelError, match="holds several images that are not planes of one"):
        read_image(tmp_path / "a.ome.tif")


def test_a_pixel_size_is_of_all_images_or_of_none(tmp_path: Path) -> None:
    for name, sizes in (("same", (0.5, 0.5)), ("other", (0.5, 0.25))):
        with tifffile.TiffWriter(tmp_path / f"{name}.ome.tif", ome=True) as tif:
            for side in sizes:
                tif.write(
                    noise((H, W)),
                    metadata={
                        "axes": "YX",
                        "PhysicalSizeX": side,
                        "PhysicalSizeY": side,
                        "Channel": {"Name": name},
                    },
                )
        image = read_image(tmp_path / f"{name}.ome.tif", z=1)
        assert image.pixel_size_um == (0.5 if name == "same" else None)


def test_channel_names_that_differ_between_images_name_none(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for name in "AB":
            tif.write(noise((2, H, W)), metadata={"axes": "CYX", "Channel": {"Name": [name, "x"]}})
    assert describe_image(tmp_path / "a.ome.tif")["channel_names"] == ["channel 0", "channel 1"]


def test_sides_that_ome_says_to_differ_are_not_put_right_by_the_tags(write: Write) -> None:
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    sides = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    assert (
        read_image(write(noise((H, W)), ome=True, metadata={"axes": "YX", **sides}, **tags)).pixel_size_um
        is None
    )
    sides = {"PhysicalSizeX": 1e9, "PhysicalSizeY": 2e9}  # no microscope's, so they say nothing
    assert (
        read_image(write(noise((H, W)), ome=True, metadata={"axes": "YX", **sides}, **tags)).pixel_size_um
        == 0.5
    )


@pytest.mark.parametrize(
    ("unit", "per_unit", "side_um"),
    [
        ("um", 4, 0.25),
        ("micron", 4, 0.25),
        ("\\u00B5m", 4, 0.25),
        ("\\u00b5m", 4, 0.25),
        ("\\u03BCm", 4, 0.25),
        ("nm", 0.004, 0.25),
        ("mm", 4000, 0.25),
        ("cm", 40_000, 0.25),
        ("inch", 50_800, 0.5),
        ("pixel", 1, None),
    ],
)
def test_pixel_size_of_imagej(write: Write, unit: str, per_unit: float, side_um: float | None) -> None:
    path = write(noise((H, W)), imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
    found = read_image(path).pixel_size_um
    assert found == (None if side_um is None else pytest.approx(side_um))


@pytest.mark.parametrize(
    ("resolution", "unit", "side_um"),
    [
        ((20_000, 20_000), "centimeter", 0.5),
        ((50_800, 50_800), "inch", 0.5),
        ((20_000, 20_100), "centimeter", 0.49875),
        ((20_000, 10_000), "centimeter", None),
        ((300, 300), "inch", None),
        ((72, 72), "inch", None),
        ((1, 1), "inch", None),
        ((20_000, 20_000), "none", None),
    ],
)
def test_pixel_size_of_resolution_tags(
    write: Write, resolution: tuple, unit: str, side_um: float | None
) -> None:
    path = write(noise((H, W)), resolution=resolution, resolutionunit=unit)
    found = read_image(path).pixel_size_um
    assert found == (None if side_um is None else pytest.approx(side_um, rel=1e-4))


@pytest.mark.parametrize("description", ["<OME", "<?xml version='1.0'?><OME <</OME>"])
def test_resolution_tags_stand_in_for_damaged_ome(write: Write, description: str) -> None:
    path = write(
        noise((H, W)),
        description=description,
        resolution=(20_000, 20_000),
        resolutionunit="centimeter",
        metadata=None,
    )
    assert read_image(path).pixel_size_um == pytest.approx(0.5)


def _tag(data: bytearray, code: int) -> int:
    """Where the value of a tag of the first page stands in a little-endian classic TIFF."""
    (page,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, page)
    entries = [page + 2 + 12 * i for i in range(count)]
    return next(at for at in entries if struct.unpack_from("<H", data, at)[0] == code) + 8


@pytest.mark.parametrize("size", [(2**17, 2**17), (0, 5)])
def test_header_that_claims_an_absurd_size(write: Write, size: tuple[int, int]) -> None:
    path = write(noise((H, W)), compression="deflate", metadata=None)
    data = bytearray(path.read_bytes())
    for code, value in zip((257, 256), size, strict=True):
        struct.pack_into("<I", data, _tag(data, code), value)
    path.write_bytes(data)
    with pytest.raises(NuxelError, match=r"more than the limit|no image"):
        read_image(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 4, "compression": "deflate"},
        {"tile": (16, 16), "compression": "lzw"},
        {"bigtiff": True},
        {"compression": "jpeg"},
    ],
)
def test_every_truncation_is_an_error(write: Write, options: dict) -> None:
    path = write(noise((H, W)), photometric="minisblack", **options)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(NuxelError, match=r"a\.tif"):
            read_image(path)


def test_pages_cut_off_are_missed(tmp_path: Path) -> None:
    """A file whose later pages are cut off still opens, and must not pass for a shorter stack."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(noise((H, W)), metadata=None)
        tif.write(noise((2 * H, W)), metadata=None)
    data = (tmp_path / "a.tif").read_bytes()
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * count)
    (tmp_path / "a.tif").write_bytes(data[: second - 1])
    with pytest.raises(NuxelError, match="cut short: some of its pages"):
        read_image(tmp_path / "a.tif")


def test_missing_strips_are_missed(write: Write) -> None:
    path = write(noise((H, W)), rowsperstrip=4, compression="deflate", metadata=None)
    data = bytearray(path.read_bytes())
    # ask for more rows than there are strips
    struct.pack_into("<I", data, _tag(data, 257), 4 * H)
    path.write_bytes(data)
    with pytest.raises(NuxelError, match="cut short: some of its pixels"):
        read_image(path)


def test_ome_set_with_a_missing_file(tmp_path: Path) -> None:
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" SizeX="34" SizeY="21" SizeZ="2" '
        'SizeC="1" SizeT="1" Type="uint8"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    ).replace("<OME ", '<OME UUID="urn:uuid:1" ')
    pixels = noise((H, W))
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, description=xml, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.ome.tif", z=0).pixels[:, :, 0], pixels)
    with pytest.raises(NuxelError, match="another file of its OME-TIFF set"):
        read_image(tmp_path / "a.ome.tif", z=1)


def test_format_is_named(write: Write) -> None:
    assert describe_image(write(noise((H, W))))["format"] == "TIFF"
    assert describe_image(write(noise((H, W)), imagej=True))["format"] == "ImageJ TIFF"
    assert describe_image(write(noise((H, W)), ome=True))["format"] == "OME-TIFF"


def test_two_samples_of_no_stated_kind_are_channels(tmp_path: Path) -> None:
    array = np.zeros((9, 13, 2), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig", extrasamples=[0]
    )
    assert describe_image(tmp_path / "a.tif")["axes"] == "CYX"


def test_an_image_of_half_the_pixels_is_no_smaller_view(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for side in (40, 28):
            tif.write(np.zeros((side, side), np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(NuxelError, match="several images"):
        read_image(tmp_path / "a.tif")


def test_each_page_is_shown_as_it_says_itself(tmp_path: Path) -> None:
    pixels = noise((H, W))
    with tifffile.TiffWriter(tmp_path / "two.tif") as tif:
        tif.write(pixels, metadata=None, photometric="minisblack")
        tif.write(pixels, metadata=None, photometric="miniswhite")
    with pytest.raises(NuxelError, match="holds several images that are not planes of one"):
        read_image(tmp_path / "two.tif", z=1)
    colours = [np.random.default_rng(seed).integers(0, 2**16, (3, 256)).astype(np.uint16) for seed in (1, 2)]
    with tifffile.TiffWriter(tmp_path / "palettes.tif") as tif:
        for colour in colours:
            tif.write(pixels, metadata=None, photometric="palette", colormap=colour)
    for page, colour in enumerate(colours):
        shown = read_image(tmp_path / "palettes.tif", z=page).pixels
        np.testing.assert_array_equal(shown, np.moveaxis((colour >> 8)[:, pixels], 0, -1))


def test_white_is_zero_of_floats(write: Write) -> None:
    pixels = np.linspace(0.25, 1, H * W, dtype=np.float32).reshape(H, W)
    np.testing.assert_allclose(
        read_image(write(pixels, photometric="miniswhite")).pixels[..., 0], 1.25 - pixels
    )
    pixels[0, 0], pixels[1, 1] = np.nan, np.inf
    shown = read_image(write(pixels, photometric="miniswhite")).pixels[..., 0]
    assert np.isnan(shown[0, 0])
    np.testing.assert_allclose(shown[2:], 1.25 - pixels[2:], atol=1e-2)


@pytest.mark.parametrize(("axes", "shape"), [("YXC", (H, W, 2)), ("YXZ", (H, W, 5)), ("XYZ", (W, H, 5))])
def test_axes_behind_rows_and_columns(write: Write, axes: str, shape: tuple[int, ...]) -> None:
    pixels = noise(shape, np.uint16)
    path = write(pixels, metadata={"axes": axes}, photometric="minisblack")
    read = read_image(path, **{"channel" if axes[2] == "C" else "z": 1}).pixels[..., 0]
    np.testing.assert_array_equal(read, pixels[..., 1].T if axes[0] == "X" else pixels[..., 1])


def test_three_channels_of_lsm_are_no_colours(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeiss calls the samples of its pages RGB, and its axes are channels."""
    path = write(noise((3, H, W)), photometric="rgb", planarconfig="separate", metadata=None)
    asked = tifffile.TiffPageSeries.get_axes
    monkeypatch.setattr(tifffile.TiffPageSeries, "get_axes", lambda *a: asked(*a).replace("S", "C"))
    assert describe_image(path)["axes"] == "CYX"
    np.testing.assert_array_equal(read_image(path, channel=1).pixels[..., 0], noise((3, H, W))[1])


def test_a_mask_of_transparency_is_no_image(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(noise((H, W, 3)), photometric="rgb", metadata=None)
        tif.write(noise((H, W), bool), photometric="minisblack", subfiletype=4, metadata=None)
    assert read_image(tmp_path / "a.tif").pixels.shape == (H, W, 3)


def test_many_images_are_not_all_listed(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for more in range(30):
            tif.write(noise((H, W + more)), photometric="minisblack", metadata=None)
    with pytest.raises(NuxelError, match="and 22 more") as refused:
        read_image(tmp_path / "a.tif")
    assert len(str(refused.value)) < 500


class TestSegments:
    """What a few bytes claim is looked at before a codec takes the memory for it, or the process down."""

    def test_lzw_that_begins_with_a_code_of_nothing(self, write: Write) -> None:
        path = write(np.zeros((H, W), np.uint8), compression="lzw", metadata=None)
        with tifffile.TiffFile(path) as tif:
            (offset,) = tif.pages[0].dataoffsets
        data = bytearray(path.read_bytes())
        data[offset + 1] = 0x50
        path.write_bytes(data)
        with pytest.raises(NuxelError, match="it is damaged: its LZW data do not begin as such do"):
            read_image(path)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("predictor", [None, 2])
    def test_lzw_that_is_whole(self, write: Write, dtype: type, predictor: int | None) -> None:
        for pixels in (noise((H, W), dtype), np.zeros((H, W), dtype), np.full((H, W), 255, dtype)):
            path = write(pixels, compression="lzw", predictor=predictor, metadata=None)
            np.testing.assert_array_equal(read_image(path).pixels[..., 0], pixels)

    def test_a_jpeg_that_claims_more_than_its_image(self, write: Write) -> None:
        path = write(noise((H, W)), compression="jpeg", metadata=None)
        assert read_image(path).pixels.shape == (H, W, 1)
        data = bytearray(path.read_bytes())
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", 60_000, 60_000)
        path.write_bytes(data)
        with pytest.raises(NuxelError, match="a part of it says that it is 60000 x 60000 pixels"):
            read_image(path)

    def test_tiles_far_larger_than_their_image(self, write: Write) -> None:
        path = write(noise((H, W)), tile=(16, 16), compression="zlib", metadata=None)
        data = bytearray(path.read_bytes())
        for code in (322, 323):
            struct.pack_into("<I", data, _tag(data, code), 1 << 15)
        path.write_bytes(data)
        with pytest.raises(NuxelError, match="its tiles are 32768 x 32768 pixels, of an image of 21 x 34"):
            read_image(path)

    def test_small_images_in_large_tiles(self, write: Write) -> None:
        path = write(noise((H, W)), tile=(2048, 2048), compression="zlib", metadata=None)
        np.testing.assert_array_equal(read_image(path).pixels[..., 0], noise((H, W)))

    def test_no_pixels_at_all(self, write: Write) -> None:
        path = write(noise((H, W)), compression="zlib", metadata=None)
        data = bytearray(path.read_bytes())
        for code in (273, 279):
            struct.pack_into("<I", data, _tag(data, code), 0)
        path.write_bytes(data)
        with pytest.raises(NuxelError, match="it holds no pixels"):
            read_image(path)


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint8" SizeX="34" SizeY="21" {sizes}>{data}</Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    "sizes", ['SizeZ="1" SizeC="1000000000" SizeT="1"', 'SizeZ="1000" SizeC="100" SizeT="100"']
)
def test_more_planes_than_any_file_has(write: Write, sizes: str) -> None:
    path = write(noise((H, W)), description=OME.format(sizes=sizes, data="<TiffData/>"), metadata=None)
    for look in (read_image, describe_image):
        with pytest.raises(NuxelError, match="planes, more than any file does"):
            look(path)
    assert files_of(path) == (path,)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_set_that_names_a_pipe_is_not_waited_for(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    data = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(("a.tif", "pipe.tif"))
    )
    sizes = 'SizeZ="1" SizeC="2" SizeT="1"'
    path = write(noise((H, W)), description=OME.format(sizes=sizes, data=data), metadata=None)
    with pytest.raises(NuxelError, match=r"planes of it are in pipe\.tif, which is not a regular file"):
        read_image(path, channel=0)


@pytest.mark.parametrize("compression", [34661, 34676])  # JBIG, SGILOG
def test_what_is_whole_and_not_read_is_not_called_damaged(write: Write, compression: int) -> None:
    path = write(noise((H, W)), metadata=None)
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, _tag(data, 259), compression)
    path.write_bytes(data)
    with pytest.raises(NuxelError, match="it is of a kind that is not read"):
        read_image(path)


def test_a_palette_image_without_a_palette(write: Write) -> None:
    path = write(noise((H, W)), metadata=None)
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, _tag(data, 262), 3)
    path.write_bytes(data)
    with pytest.raises(NuxelError, match="no palette"):
        read_image(path)
