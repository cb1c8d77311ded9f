"""Run-length CSV files: the competition's counting, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nuxel.errors import NuxelError
from nuxel.labels.read import read_labels
from nuxel.labels.run_length import RunLengths, read_run_lengths

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def encode(mask: np.ndarray) -> str:
    """The competition's encoding, pixel by pixel."""
    runs: list[int] = []
    previous = -2
    for place in np.flatnonzero(mask.T.ravel()).tolist():
        if place > previous + 1:
            runs += [place + 1, 0]
        runs[-1] += 1
        previous = place
    return " ".join(map(str, runs))


def write(path: Path, *lines: str, head: str = "ImageId,EncodedPixels") -> Path:
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_runs_go_down_the_columns_from_1(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,1 2 4 1", "y,2 1", "x,6 1", "empty,")
    found = read_run_lengths(path)
    assert list(found) == ["x", "y", "empty"]
    assert found["x"].paint((2, 3)).tolist() == [[1, 0, 0], [1, 1, 2]]
    assert found["y"].paint((2, 3)).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert found["empty"].paint((2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert found["x"].paint((2, 3)).dtype == np.int32
    assert found["x"].shape is None


@given(
    arrays.arrays(
        np.int32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 3)
    )
)
def test_painting_undoes_encoding(labels: np.ndarray) -> None:
    runs = tuple(np.array(encode(labels == n).split(), np.int64).reshape(-1, 2) for n in range(1, 4))
    np.testing.assert_array_equal(RunLengths("a", runs).paint(labels.shape), labels)


def test_the_earlier_nucleus_keeps_a_shared_pixel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,1 3", "x,3 2")
    assert read_run_lengths(path)["x"].paint((4, 1)).ravel().tolist() == [1, 1, 1, 2]


def test_height_and_width_give_the_shape(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "x.png,1 1,4,5,Public",
        "y.tiff,,,,",
        head="ImageId,EncodedPixels,Height,Width,Usage",
    )
    found = read_run_lengths(path)
    assert found["x"].shape == (4, 5)
    assert found["y"].shape is None


def test_the_extension_of_an_image_goes_and_other_dots_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "plate.1/A1.PNG,", "B.2,", " C.npy ,")
    assert list(read_run_lengths(path)) == ["plate.1/A1", "B.2", "C"]


@pytest.mark.parametrize(
    "runs", ["1", "1 2 3", "0 4", "1 0", "-3 2", "a b", "1.5 2", "99999999999999999999 1"]
)
def test_what_are_no_runs(tmp_path: Path, runs: str) -> None:
    path = write(tmp_path / "a.csv", "x,1 2", f"x,{runs}")
    with pytest.raises(NuxelError, match=r"a\.csv, line 3: '.*' are no runs; EncodedPixels must be pairs"):
        read_run_lengths(path)


def test_long_runs_are_shown_in_part(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x," + "1 " * 51)
    with pytest.raises(NuxelError) as refused:
        read_run_lengths(path)
    assert "1 1 1..." in str(refused.value)
    assert len(str(refused.value)) < 200 + len(str(path))


def test_a_run_beyond_the_image_names_file_and_image(tmp_path: Path) -> None:
    found = read_run_lengths(write(tmp_path / "a.csv", "x,5 2"))["x"]
    assert found.paint((2, 3)).sum() == 2
    with pytest.raises(
        NuxelError, match=r"a\.csv: x: a run ends at pixel 6, but the image of 1 x 5 has only 5"
    ):
        found.paint((1, 5))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("id,modality", "no column ImageId and no column EncodedPixels; the first line must be"),
        ("ImageId,mask", "it has no column EncodedPixels;"),
        ("EncodedPixels", "it has no column ImageId;"),
        ("", "it has no column ImageId"),
    ],
)
def test_other_tables_are_refused_by_name(tmp_path: Path, head: str, reason: str) -> None:
    with pytest.raises(NuxelError, match=reason) as refused:
        read_run_lengths(write(tmp_path / "other.csv", "x,1 2", head=head))
    assert "other.csv" in str(refused.value)


@pytest.mark.parametrize(
    ("sides", "ok"), [("4,5", True), ("4,", False), (",5", False), ("four,5", False), ("-4,5", False)]
)
def test_sizes_are_whole_numbers(tmp_path: Path, sides: str, ok: bool) -> None:
    path = write(tmp_path / "a.csv", f"x,1 1,{sides}", head="ImageId,EncodedPixels,Height,Width")
    if ok:
        assert read_run_lengths(path)["x"].shape == (4, 5)
        return
    with pytest.raises(NuxelError, match=r"line 2: Height and Width are .*whole numbers"):
        read_run_lengths(path)


def test_an_image_without_name(tmp_path: Path) -> None:
    with pytest.raises(NuxelError, match="line 3: ImageId is empty"):
        read_run_lengths(write(tmp_path / "a.csv", "x,1 1", ",1 1"))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"\x89PNG\xff\xfe\x00" * 9)
    for path, reason in ((binary, "it is no text table"), (tmp_path / "none.csv", "No such file")):
        with pytest.raises(NuxelError, match=reason) as refused:
            read_run_lengths(path)
        assert str(path) in str(refused.value)


def test_real_labels_survive_the_round_trip(tmp_path: Path) -> None:
    path = DATA / "dsb2018" / "labels" / "00071198d059.png"
    if not path.is_file():
        pytest.skip("shared/data/dsb2018 is not here")
    labels = read_labels(path)
    lines = [f"{path.stem},{encode(labels == n)}" for n in range(1, labels.max() + 1)]
    found = read_run_lengths(write(tmp_path / "a.csv", *lines))[path.stem]
    np.testing.assert_array_equal(found.paint(labels.shape), labels)


@given(arrays.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)))
@settings(max_examples=100)
def test_what_is_encoded_paints_the_same_again(labels):
    """Any label image, numbered again without gaps."""
    encoded = RunLengths.of(labels)
    numbers = np.unique(labels[labels > 0])
    expected = np.where(labels > 0, np.searchsorted(numbers, labels) + 1, 0)
    assert len(encoded.nuclei) == len(numbers)
    assert np.array_equal(encoded.paint(labels.shape), expected)
    for runs in encoded.nuclei:
        assert (runs >= 1).all()
        assert (runs[1:, 0] > runs[:-1].sum(1)).all()  # in order, and never two where one would do


def test_the_shape_may_stand_in_one_row_of_an_image_only(tmp_path):
    (tmp_path / "a.csv").write_text("ImageId,EncodedPixels,Height,Width\na,1 1,2,3\na,3 1,,\n")
    assert read_run_lengths(tmp_path / "a.csv")["a"].shape == (2, 3)


def test_a_run_whose_end_is_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,1 2", f"x,{2**63 - 1} 5")
    with pytest.raises(
        NuxelError, match=f"a run ends at pixel {2**63 + 3}, but the image of 3 x 3 has only 9"
    ):
        read_run_lengths(path)["x"].paint((3, 3))


def test_images_that_differ_in_their_extension_alone_are_not_mixed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x.png,1 2", "x.tif,4 1")
    with pytest.raises(NuxelError, match=r"line 3: x\.png and x\.tif would be one image"):
        read_run_lengths(path)


def test_a_name_with_and_without_its_extension_is_one_image(tmp_path: Path) -> None:
    found = read_run_lengths(write(tmp_path / "a.csv", "x.png,1 2", " x ,4 1", "x.png ,6 1"))
    assert {name: len(runs.nuclei) for name, runs in found.items()} == {"x": 3}
