from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nuxel.errors import NuxelError
from nuxel.labels.read import read_labels

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LABELS = np.array([[0, 1, 1], [2, 0, 200]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".npy"])
def test_every_integer_type_is_read(tmp_path, dtype, suffix):
    path = tmp_path / f"labels{suffix}"
    labels = (LABELS % 128).astype(dtype)
    if suffix == ".npy":
        np.save(path, labels)
    else:
        tifffile.imwrite(path, labels)
    found = read_labels(path)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_png_is_read(tmp_path, dtype):
    path = tmp_path / "labels.png"
    labels = (LABELS * (300 if dtype == np.uint16 else 1)).astype(dtype)
    Image.fromarray(labels).save(path)
    np.testing.assert_array_equal(read_labels(str(path)), labels)


def test_palette_png_gives_indices(tmp_path):
    picture = Image.fromarray(LABELS.astype(np.uint8), mode=None).convert("L")
    indexed = Image.new("P", picture.size)
    indexed.putpalette([255 - i // 3 for i in range(768)])
    indexed.putdata(LABELS.ravel().tolist())
    indexed.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png"), LABELS)


def test_negative_and_large_numbers_are_kept(tmp_path):
    labels = np.array([[-1, 0], [70_000, 2**31 - 1]], np.int64)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    assert read_labels(tmp_path / "labels.tif").tolist() == labels.tolist()


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3, 1), (1, 1, 2, 3), (1, 2, 3, 1)])
def test_axes_of_length_one_around_the_plane_go(tmp_path, shape):
    np.save(tmp_path / "labels.npy", LABELS.reshape(shape))
    assert read_labels(tmp_path / "labels.npy").tolist() == LABELS.tolist()


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1)])
def test_a_plane_that_is_a_line_stays_a_plane(tmp_path, shape):
    np.save(tmp_path / "labels.npy", np.ones(shape, int))
    assert read_labels(tmp_path / "labels.npy").shape == shape


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[0.5, 1.0]]), "holds float64 values; labels must be integers"),
        (np.array([[0.0, 1.0]], np.float32), "holds float32 values; labels must be integers"),
        (np.array([[False, True]]), "yes/no mask"),
        (np.array([[255, 0, 255]], np.uint8), "holds only 0 and 255, in several regions: a yes/no mask"),
        (np.array([[255, 0] * 5], np.int32), "holds only 0 and 255"),
        (np.array([[65535, 0] * 5], np.uint16), "holds only 0 and 65535"),
        (np.array([[127, 0] * 5], np.int8), "holds only 0 and 127"),
        (np.array([[1, 0] * 5], np.uint8), "holds only 0 and 1, in several regions"),
        (np.array([[1, 0] * 5], np.int64), "yes/no mask"),
        (np.zeros((4, 5, 3), np.uint8), "colour picture"),
        (np.zeros((4, 5, 4), np.uint8), "colour picture"),
        (np.zeros((7, 5, 6), np.uint16), "has shape"),
        (np.zeros(7, np.uint16), "has shape"),
        (np.array([[2**31]]), "must lie within"),
        (np.array([[-(2**31) - 1]]), "must lie within"),
        (np.array([[{}]], object), "cannot be read"),
    ],
)
def test_what_is_no_label_image_is_refused_by_name(tmp_path, array, reason):
    path = tmp_path / "odd.npy"
    np.save(path, array)
    with pytest.raises(NuxelError, match=reason) as refused:
        read_labels(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[255, 255, 0]], np.uint8),
        np.array([[255, 0, 254]], np.uint8),
        np.array([[255, 0, 255, -1]], np.int32),
        np.array([[255, 0, 255, 1]], np.uint8),
        np.array([[7, 0, 7, 0, 7]], np.uint8),
        np.array([[1, 0] * 4], np.uint8),  # one nucleus, cut by the edge
        np.array([[255, 0, 255]], np.int32),
        np.array([[65535, 0] * 4], np.uint16),
    ],
)
def test_one_region_or_another_number_is_no_mask(tmp_path, array):
    np.save(tmp_path / "labels.npy", array)
    assert np.array_equal(read_labels(tmp_path / "labels.npy"), array)


def test_colour_and_one_bit_png_are_refused(tmp_path):
    Image.new("RGB", (5, 4)).save(tmp_path / "colour.png")
    Image.new("1", (5, 4)).save(tmp_path / "mask.png")
    with pytest.raises(NuxelError, match="colour picture"):
        read_labels(tmp_path / "colour.png")
    with pytest.raises(NuxelError, match="yes/no mask"):
        read_labels(tmp_path / "mask.png")


def test_float_and_stacked_tiff_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "float.tif", np.ones((4, 5), np.float32))
    tifffile.imwrite(tmp_path / "stack.tif", np.ones((7, 8, 9), np.uint16))
    with pytest.raises(NuxelError, match=r"float\.tif: holds float32"):
        read_labels(tmp_path / "float.tif")
    with pytest.raises(NuxelError, match=r"stack\.tif: has shape \(7, 8, 9\)"):
        read_labels(tmp_path / "stack.tif")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy"])
def test_damaged_missing_and_empty_files_are_refused_by_name(tmp_path, suffix):
    damaged, missing, empty = (tmp_path / f"{name}{suffix}" for name in ("damaged", "missing", "empty"))
    damaged.write_bytes(b"no image at all")
    empty.touch()
    for path in (damaged, missing, empty):
        with pytest.raises(NuxelError, match=r"cannot be read as a label image \(.+\)") as refused:
            read_labels(path)
        assert str(path) in str(refused.value)


def test_a_truncated_tiff_is_refused(tmp_path):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, np.arange(10_000, dtype=np.int32).reshape(100, 100), compression="zlib")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(NuxelError, match="cannot be read"):
        read_labels(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(NuxelError, match="No such file"):
        read_labels(tmp_path / "missing.png")


def test_an_unknown_kind_of_file_names_the_known_ones(tmp_path):
    with pytest.raises(NuxelError, match=r"\.tif, \.tiff, \.png, \.npy"):
        read_labels(tmp_path / "labels.jpg")


def test_large_png_does_not_warn(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "large.png")
    assert read_labels(tmp_path / "large.png").sum() == 16


def test_real_labels_are_read():
    folder = DATA / "dsb2018" / "labels"
    if not folder.is_dir():
        pytest.skip("shared/data/dsb2018 is not here")
    labels = read_labels(folder / "0ea221716cf1.png")
    assert labels.shape == (520, 696)
    assert labels.max() == 369
