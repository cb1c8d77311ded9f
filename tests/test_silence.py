"""Warnings of libraries are kept off the screen, in any number of threads, and all others are not."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from nuxel.silence import silenced


def warn_as(module: str) -> None:
    warnings.warn_explicit("of no use", UserWarning, "file.py", 1, module=module)


@pytest.mark.parametrize(
    "module", ["PIL.Image", "tifffile.tifffile", "imagecodecs", "skimage.segmentation", "nuxel.image.tiff"]
)
def test_what_libraries_say_is_silent_in_the_block_alone(module: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with silenced():
            warn_as(module)
        assert not told
        warn_as(module)
        assert len(told) == 1


def test_what_others_say_is_heard() -> None:
    with silenced(), pytest.warns(UserWarning, match="of no use"):
        warn_as("mine")
    with silenced(), pytest.raises(UserWarning):
        warn_as("PILgrim")


def test_threads_that_overlap_leave_the_filters_as_they_were() -> None:
    before = list(warnings.filters)
    inside = threading.Barrier(2)

    def first() -> None:
        with silenced():
            inside.wait(5)
            inside.wait(5)

    def second() -> None:
        inside.wait(5)
        with silenced():  # entered after the first, and left after it
            inside.wait(5)
            leave.wait(5)

    leave = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(first), pool.submit(second)
        one.result(5)
        leave.set()
        two.result(5)
    assert warnings.filters == before


def test_an_error_ends_it_too() -> None:
    before = list(warnings.filters)
    with pytest.raises(ValueError, match="odd"), silenced():
        raise ValueError("odd")
    assert warnings.filters == before
