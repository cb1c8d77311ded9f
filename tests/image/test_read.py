"""Reading as a user meets it: what is read, what is refused and in which words."""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from nuxel.errors import NuxelError, UsageError
from nuxel.image import reader
from nuxel.image.formats import LATER
from nuxel.image.image import Image
from nuxel.image.read import describe_image, read_image

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    Picture.fromarray(PIXELS).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_image_says_what_it_is(png: Path) -> None:
    image = read_image(png)
    assert (image.height, image.width) == (9, 13)
    assert image.source == str(png)
    assert image.channel_names == ("red", "green", "blue")
    assert image.pixel_size_um is None


def test_path_may_be_text(png: Path) -> None:
    np.testing.assert_array_equal(read_image(str(png)).pixels, PIXELS)


@pytest.mark.parametrize("channel", ["green", "Green", 1, "1"])
def test_one_colour(png: Path, channel: str | int) -> None:
    image = read_image(png, channel=channel)
    np.testing.assert_array_equal(image.pixels, PIXELS[:, :, 1:2])
    assert image.pixels.flags.c_contiguous
    assert image.channel_names == ("green",)


@pytest.mark.parametrize("size", [0.25, 1, 150.0])
def test_own_pixel_size_wins(tmp_path: Path, size: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, ome=True, metadata={"PhysicalSizeX": 0.5})
    assert read_image(tmp_path / "a.tif").pixel_size_um == 0.5
    assert read_image(tmp_path / "a.tif", pixel_size_um=size).pixel_size_um == size


@pytest.mark.parametrize("size", [0, -1.0, float("nan"), float("inf")])
def test_own_pixel_size_must_be_one(png: Path, size: float) -> None:
    with pytest.raises(UsageError, match="pixel size"):
        read_image(png, pixel_size_um=size)


@pytest.mark.parametrize(
    ("form", "extension"), [("png", "tif"), ("jpeg", "png"), ("bmp", "jpg"), ("tiff", "bmp"), ("png", "x")]
)
def test_content_decides_when_the_extension_lies(tmp_path: Path, form: str, extension: str) -> None:
    Picture.fromarray(PIXELS).save(tmp_path / f"a.{extension}", form)
    assert read_image(tmp_path / f"a.{extension}").pixels.shape == PIXELS.shape
    assert describe_image(tmp_path / f"a.{extension}")["format"] == form.upper()


def test_description_is_json(png: Path) -> None:
    described = describe_image(png)
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "path": str(png),
        "format": "PNG",
        "axes": "YXS",
        "shape": [9, 13, 3],
        "dtype": "uint8",
        "channel_names": ["red", "green", "blue"],
        "pixel_size_um": None,
    }


def refusal(path: Path) -> str:
    """The one sentence that both functions refuse a file with."""
    messages = []
    for function in (read_image, describe_image):
        with pytest.raises(NuxelError) as caught:
            function(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "\n" not in messages[0]
    assert messages[0].startswith(str(path))
    return messages[0]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.ome.tif"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"# a text file\nwith lines\n", "content is not"),
        (bytes(range(256)) * 9, "content is not"),
        (b"II", "content is not"),
        (b"\x89PN", "content is not"),
        (b"II*\0", "damaged"),
        (b"II*\0\x08\0\0\0\xff\xff", "damaged"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"BM", "damaged"),
    ],
)
def test_what_is_no_image(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "a.png")
    assert "no such file" in refusal(tmp_path / "a.czi")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    assert "no such file" in refusal(tmp_path / "link.png")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "not a regular file" in refusal(tmp_path / "a.png")


def test_no_permission(png: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert "no permission" in refusal(png)


def test_no_memory(png: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", exhaust)
    assert "not enough memory" in refusal(png)


@pytest.mark.parametrize("form", ["png", "jpeg", "bmp", "tiff"])
def test_more_than_this_machine_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    Picture.fromarray(PIXELS).save(tmp_path / "a", form)
    monkeypatch.setattr(reader, "available_memory", lambda: 1000.0)
    assert "9 x 13 pixels need" in refusal(tmp_path / "a")


@pytest.mark.parametrize(
    ("height", "width", "good"),
    [(2**15, 2**16, True), (2**15 + 1, 2**16, False), (0, 9, False), (9, 0, False)],
)
def test_size_limit(monkeypatch: pytest.MonkeyPatch, height: int, width: int, good: bool) -> None:
    monkeypatch.setattr(reader, "available_memory", lambda: float("inf"))
    if good:
        reader.refuse_too_large(height, width, 4)
    else:
        with pytest.raises(NuxelError, match="its header says"):
            reader.refuse_too_large(height, width, 4)


def test_memory_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**27 < reader.available_memory() < float("inf")
    limits = tmp_path / "memory.max", tmp_path / "limit_in_bytes"
    monkeypatch.setattr(reader, "_LIMITS", limits)
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert reader.available_memory() == float("inf")
    for path in limits:
        path.write_text("max\n")
        assert reader.available_memory() == float("inf")
        path.write_text("4096\n")
        assert reader.available_memory() == 4096
        path.unlink()


def test_a_bomb_that_decodes_is_refused_for_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large as it says, and small enough to be decoded; but it must be normalised and labelled, too."""
    monkeypatch.setattr(reader, "available_memory", lambda: 100.0 * 100 * 10)
    with pytest.raises(NuxelError, match="more than this machine grants"):
        reader.refuse_too_large(100, 100, 8)
    reader.refuse_too_large(70, 70, 8)


@pytest.mark.parametrize("extension", LATER)
def test_formats_to_come_are_named(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension.upper()}"
    path.mkdir() if extension == ".zarr" else path.write_bytes(b"II*\0")
    message = refusal(path)
    assert LATER[extension] in message
    assert "no reader" in message


def test_refusals_of_arguments_name_the_file_and_are_usage_errors(png: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.png: z must be"):
        read_image(png, z="min")  # type: ignore[arg-type]


def test_questions_name_the_file(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        PIXELS[:, :, 0].repeat(2, 0).reshape(2, 9, 13),
        imagej=True,
        metadata={"axes": "ZYX"},
    )
    with pytest.raises(NuxelError, match=r"a\.tif holds axes ZYX of sizes 2 x 9 x 13 .*--z 0\.\.1 or max"):
        read_image(tmp_path / "a.tif")


def test_nothing_is_logged_or_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 9, 13), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    # cut inside the page table, which tifffile logs; and an ImageJ description that counts too many planes
    path.write_bytes(path.read_bytes().replace(b"images=3", b"images=9")[:-30])
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        with pytest.raises(NuxelError):
            read_image(path)
        with pytest.raises(NuxelError):
            _read_a_damaged_page_table(tmp_path)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    logging.getLogger("tifffile").warning("the log is open again")
    assert caplog.messages == ["the log is open again"]


def _read_a_damaged_page_table(folder: Path) -> None:
    (folder / "b.tif").write_bytes(b"II*\0" + b"\x08\0\0\0" + b"\x07" * 90)
    read_image(folder / "b.tif")


@pytest.mark.parametrize("names", [(), ("grey", "more")])
def test_image_needs_a_name_a_channel(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Image(np.zeros((4, 4, 1)), None, names, "a")


def test_image_needs_three_dimensions() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Image(np.zeros((4, 4)), None, ("grey",), "a")


@needs_shared
@pytest.mark.parametrize("folder", ["dsb2018/images", "tnbc/images", "kaggle_layout/stage1_train/*/images"])
def test_real_images_agree_with_pillow(folder: str) -> None:
    paths = sorted(SHARED.glob(f"{folder}/*.png"))
    assert paths
    for path in paths[:: max(1, len(paths) // 12)]:
        with Picture.open(path) as picture:
            expected = np.asarray(picture).reshape(picture.height, picture.width, -1)
        np.testing.assert_array_equal(read_image(path).pixels, expected[:, :, :3])


@needs_shared
def test_real_ome_tiff() -> None:
    path = SHARED / "formats" / "multi-channel-z-series.ome.tif"
    stack = tifffile.imread(path)
    assert describe_image(path)["axes"] == "CZYX"
    np.testing.assert_array_equal(read_image(path, channel=2, z=4).pixels[:, :, 0], stack[2, 4])
    np.testing.assert_array_equal(read_image(path, channel=0, z="max").pixels[:, :, 0], stack[0].max(0))
    with pytest.raises(NuxelError, match="sizes 3 x 5 x 167 x 439"):
        read_image(path)


@needs_shared
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("slides/CMU-1-Small-Region.svs", "Aperio SVS"),
        ("formats/cluster.nd2", "Nikon ND2"),
        ("formats/xyz__multiple_images.czi", "Zeiss CZI"),
    ],
)
def test_real_files_of_formats_to_come(name: str, form: str) -> None:
    assert form in refusal(SHARED / name)


@pytest.mark.parametrize("form", ["png", "jpeg", "bmp", "tiff"])
def test_the_bytes_of_the_pixels_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    Picture.fromarray(np.zeros((9, 13, 3), np.uint8)).save(tmp_path / "a", form)
    monkeypatch.setattr(reader, "available_memory", lambda: 9 * 13 * 10.0 + 1)
    with pytest.raises(NuxelError, match="more than this machine grants"):
        read_image(tmp_path / "a")


def test_a_channel_named_max_is_no_projection(tmp_path: Path) -> None:
    named = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((2, 9, 13), np.uint8), metadata=named)
    with pytest.raises(NuxelError, match="has no channel 'max'"):
        read_image(tmp_path / "a.ome.tif", channel="max")
