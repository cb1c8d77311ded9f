"""The Data Science Bowl's table: written, and read back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nuxel.errors import NuxelError
from nuxel.export.run_lengths import write_run_lengths
from nuxel.labels.relabel import relabel
from nuxel.labels.run_length import read_run_lengths

LABELS = arrays(np.int32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 4))


def test_by_hand(tmp_path: Path) -> None:
    write_run_lengths(
        tmp_path / "a.csv",
        [("one", np.array([[1, 0, 2], [1, 1, 2]], np.int32)), ("none", np.zeros((4, 4), np.int32))],
    )
    text = (tmp_path / "a.csv").read_text()
    assert text == "ImageId,EncodedPixels\none,1 2 4 1\none,5 2\nnone,\n"


@given(st.lists(LABELS, min_size=1, max_size=4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reading_gives_the_same_label_images(tmp_path: Path, images: list[np.ndarray]) -> None:
    images = [relabel(labels) for labels in images]
    names = [f'image {number}, "odd"' for number in range(len(images))]
    write_run_lengths(tmp_path / "a.csv", zip(names, images, strict=True))
    found = read_run_lengths(tmp_path / "a.csv")
    assert list(found) == names
    for name, labels in zip(names, images, strict=True):
        assert np.array_equal(found[name].paint(labels.shape), labels)


def test_a_name_that_is_no_text_is_escaped(tmp_path: Path) -> None:
    write_run_lengths(tmp_path / "a.csv", [("\udcff", np.ones((1, 1), np.int32))])
    assert (tmp_path / "a.csv").read_bytes() == b"ImageId,EncodedPixels\n\\udcff,1 1\n"


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NuxelError, match="cannot be written"):
        write_run_lengths(tmp_path / "nowhere" / "a.csv", [])
