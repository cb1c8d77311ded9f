"""Label images in bands: the same pixels, whatever the file's tiles or strips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from nuxel.errors import NuxelError
from nuxel.labels.bands import aligned, plane_shape, read_bands

LABELS = np.random.default_rng(0).integers(-1, 90_000, (77, 101)).astype(np.int32)


@pytest.mark.parametrize(
    ("layout", "heights"),
    [
        ({"tile": (32, 16)}, [32, 32, 13]),
        ({"tile": (32, 16), "compression": "zlib"}, [32, 32, 13]),
        ({"tile": (128, 128)}, [77]),
        ({"rowsperstrip": 10, "compression": "zlib", "predictor": 2}, [10] * 7 + [7]),
        ({"rowsperstrip": 77}, [77]),
        ({"rowsperstrip": 1}, [1] * 77),
    ],
)
def test_bands_make_up_the_image(tmp_path: Path, layout: dict[str, object], heights: list[int]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, LABELS, **layout)
    assert plane_shape(path) == (77, 101)
    bands = list(read_bands(path))
    assert [len(band) for band in bands] == heights
    np.testing.assert_array_equal(np.concatenate(bands), LABELS)
    assert bands[0].dtype == np.int32


def test_tiles_that_were_never_written_are_background(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    tiles = iter([np.ones((16, 16), np.uint16), None, None, np.full((16, 16), 3, np.uint16)])
    tifffile.imwrite(path, tiles, shape=(32, 32), dtype=np.uint16, tile=(16, 16))
    found = np.concatenate(list(read_bands(path)))
    assert (found[:16, :16] == 1).all()
    assert (found[16:, 16:] == 3).all()
    assert found.sum() == 256 * 4


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_what_is_not_read_in_bands(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "typed.tif", np.zeros((8, 8), dtype))
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    (tmp_path / "damaged.tif").write_bytes(b"no image")
    for name in ("typed.tif", "stack.tif", "colour.tif", "damaged.tif", "missing.tif", "a.png", "a.npy"):
        assert plane_shape(tmp_path / name) is None


def test_a_damaged_band_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, LABELS, tile=(16, 16), compression="zlib")
    content = bytearray(path.read_bytes())
    content[-4000:-2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(NuxelError, match=r"cut\.tif: cannot be read as a label image"):
        list(read_bands(path))


def cut(image: np.ndarray, places: set[int]) -> list[np.ndarray]:
    return np.split(image, sorted(places))


@given(st.sets(st.integers(1, 19)), st.sets(st.integers(1, 19)))
def test_aligned_bands_have_every_border_of_both(first: set[int], second: set[int]) -> None:
    image = np.arange(40).reshape(20, 2)
    pairs = list(aligned(cut(image, first), cut(-image, second)))
    assert all((a == -b).all() for a, b in pairs)
    np.testing.assert_array_equal(np.concatenate([a for a, _ in pairs]), image)
    assert [len(a) for a, _ in pairs] == np.diff([0, *sorted(first | second), 20]).tolist()


@pytest.mark.parametrize(
    ("marked", "dtype"), [(1, np.uint8), (255, np.uint8), (255, np.int32), (65535, np.uint16)]
)
def test_a_mask_is_refused_at_its_end(tmp_path: Path, marked: int, dtype: type) -> None:
    labels = np.zeros((40, 40), dtype)
    for left in range(1, 36, 7):
        labels[20:30, left : left + 4] = marked
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, labels, rowsperstrip=8, compression="zlib")
    with pytest.raises(NuxelError, match=f"mask.tif: holds only 0 and {marked}, in several regions"):
        list(read_bands(path))
    labels[35:, :5] = 2  # another nucleus, so it was no mask
    tifffile.imwrite(path, labels, rowsperstrip=8, compression="zlib")
    np.testing.assert_array_equal(np.concatenate(list(read_bands(path))), labels)
