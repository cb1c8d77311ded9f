import numpy as np
import pytest
import tifffile
from PIL import Image

from nuxel.errors import NuxelError
from nuxel.export import label_tiff
from nuxel.export.label_tiff import write_labels
from nuxel.labels.read import read_labels


def scene():
    return np.random.default_rng(0).integers(-1, 90_000, (61, 83)).astype(np.int32)


def test_labels_come_back_exactly_above_sixteen_bits(tmp_path):
    write_labels(tmp_path / "labels.tif", scene())
    assert scene().max() > 65_535
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.tif"), scene())


def test_another_reader_sees_the_same(tmp_path):
    write_labels(tmp_path / "labels.tif", scene())
    with Image.open(tmp_path / "labels.tif") as picture:
        np.testing.assert_array_equal(np.asarray(picture), scene())


def test_the_file_is_one_deflated_int32_plane_that_imagej_can_decode(tmp_path):
    write_labels(tmp_path / "labels.tif", scene())
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        assert len(tiff.pages) == 1
        page = tiff.pages[0]
        assert page.dtype == np.int32
        assert page.compression in (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
        assert page.predictor == tifffile.PREDICTOR.NONE
        assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
        assert not tiff.is_bigtiff


@pytest.mark.parametrize("size", [0.25, 0.499, 0.2268, 1.0, 13.7])
def test_the_pixel_size_reads_back(tmp_path, size):
    write_labels(tmp_path / "labels.tif", scene(), pixel_size_um=size)
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        tags = tiff.pages[0].tags
        assert tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        for axis in "XY":
            above, below = tags[f"{axis}Resolution"].value
            assert 1e4 * below / above == pytest.approx(size, rel=1e-6)


def test_without_a_pixel_size_none_is_claimed(tmp_path):
    write_labels(tmp_path / "labels.tif", scene())
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        assert tiff.pages[0].tags["ResolutionUnit"].value == tifffile.RESUNIT.NONE


def test_large_images_become_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(label_tiff, "_CLASSIC_LIMIT", scene().nbytes - 1)
    write_labels(tmp_path / "labels.tif", scene())
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        assert tiff.is_bigtiff
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.tif"), scene())


def test_the_limit_leaves_room_below_four_gigabytes():
    assert 3.9e9 < label_tiff._CLASSIC_LIMIT < 2**32


def test_the_same_labels_give_the_same_bytes(tmp_path):
    for name in ("a.tif", "b.tif"):
        write_labels(tmp_path / name, scene(), pixel_size_um=0.5)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(NuxelError, match=r"labels\.tif: cannot be written"):
        write_labels(tmp_path / "nowhere" / "labels.tif", scene())
