"""Units, credibility and squareness of pixel sizes."""

from __future__ import annotations

import math

import pytest

from nuxel.errors import UsageError
from nuxel.image.pixel_size import checked_pixel_size, square_pixel, unit_in_um


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("nm", 1e-3),
        ("pm", 1e-6),
        ("Å", 1e-4),
        ("um", 1),
        ("\u00b5m", 1),
        ("\u03bcm", 1),
        ("\\u00B5m", 1),
        ("micron", 1),
        ("Microns", 1),
        ("micrometre", 1),
        ("micrometers", 1),
        ("mm", 1000),
        ("cm", 10_000),
        ("m", 1_000_000),
        ("dm", 100_000),
        ("inch", 25_400),
        ("inches", 25_400),
        ("in", 25_400),
        ("thou", 25.4),
        (" nm ", 1e-3),
        ("pixel", None),
        ("reference frame", None),
        ("", None),
    ],
)
def test_units(unit: str, um: float | None) -> None:
    assert unit_in_um(unit) == um


@pytest.mark.parametrize(
    ("x", "y", "side"),
    [
        (0.5, 0.5, 0.5),
        (None, 0.25, 0.25),
        (0.25, None, 0.25),
        (None, None, None),
        (1.0, 1.0099, 1.00495),
        (1.0, 1.02, None),
        (1.02, 1.0, None),
        (0.01, 0.01, 0.01),
        (0.0099, 0.0099, None),
        (20.0, 20.0, 20.0),
        (20.1, 20.1, None),
        (0.0, 0.0, None),
        (-0.5, -0.5, None),
        (-0.5, 0.5, None),
        (math.nan, 0.5, None),
        (0.5, math.inf, None),
    ],
)
def test_only_square_and_credible_sizes_are_believed(
    x: float | None, y: float | None, side: float | None
) -> None:
    assert square_pixel(x, y) == (None if side is None else pytest.approx(side))


@pytest.mark.parametrize("dpi", [1, 72, 96, 150, 300, 600, 1200])
def test_resolutions_of_editors_and_printers_are_not_believed(dpi: int) -> None:
    assert square_pixel(25400 / dpi, 25400 / dpi) is None


@pytest.mark.parametrize("given", [0, -1, 2.5e-7, 1e9, math.nan, math.inf, "wide", None, [1]])
def test_own_size_must_be_one_in_micrometres(given: object) -> None:
    with pytest.raises(UsageError, match="must be a number of micrometres"):
        checked_pixel_size(given)  # type: ignore[arg-type]


def test_own_size_may_be_what_no_file_is_believed() -> None:
    assert checked_pixel_size(150) == 150.0
