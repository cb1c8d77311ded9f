"""Micrometres per pixel out of what files write."""

from __future__ import annotations

import math
import re

from nuxel.errors import UsageError

SMALLEST_UM, LARGEST_UM = 0.01, 20.0
"""Only sizes in this range are believed: 72, 96, 300 and 1200 dots per inch, or 1 pixel per unit, are not."""

SMALLEST_GIVEN_UM, LARGEST_GIVEN_UM = 1e-4, 1000
"""A user's own size outside of this range is in another unit."""

ISOTROPY = 0.01
"""Pixels whose sides differ by more than this share are not square, and have no one size."""

_UM = {
    "pm": 1e-6,
    "Å": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "thou": 25.4,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "dm": 1e5,
    "in": 25400.0,
    "inch": 25400.0,
    "m": 1e6,
    "meter": 1e6,
}


def unit_in_um(unit: str) -> float | None:
    """Micrometres in one ``unit`` as OME or ImageJ spells it, ``None`` when it is no length (``"pixel"``).

    Examples
    --------
    >>> unit_in_um("nm"), unit_in_um("microns"), unit_in_um("pixel")
    (0.001, 1.0, None)
    """
    # ImageJ writes escapes; the micro sign and the Greek letter mean the same
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), unit)
    name = text.strip().replace("\u00b5", "u").replace("\u03bc", "u")
    lowered = name.lower().replace("metre", "meter")
    for spelling in (name, lowered, lowered.removesuffix("s"), "inch" if lowered == "inches" else lowered):
        if spelling in _UM:
            return _UM[spelling]
    return None


def square_pixel(x_um: float | None, y_um: float | None) -> float | None:
    """The side of a pixel in micrometres, ``None`` when it is not known, not credible or not square.

    One missing side is taken to equal the other; sides within 1 % of each other are averaged. Only sizes
    from 0.01 to 20 micrometres are believed, so that the placeholders of image editors count for nothing.

    Examples
    --------
    >>> square_pixel(0.5, None), square_pixel(0.5, 0.6), square_pixel(25400 / 72, 25400 / 72)
    (0.5, None, None)
    """
    x, y = x_um if x_um is not None else y_um, y_um if y_um is not None else x_um
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        return None
    if abs(x - y) > ISOTROPY * max(x, y):
        return None
    side = (x + y) / 2
    return side if SMALLEST_UM <= side <= LARGEST_UM else None


def checked_pixel_size(pixel_size_um: float) -> float:
    """The user's own pixel size, or UsageError unless it is one of a light or electron microscope."""
    try:
        side = float(pixel_size_um)
    except (TypeError, ValueError):
        side = math.nan
    if not SMALLEST_GIVEN_UM <= side <= LARGEST_GIVEN_UM:
        raise UsageError(
            f"the pixel size must be a number of micrometres such as 0.25, from {SMALLEST_GIVEN_UM} to "
            f"{LARGEST_GIVEN_UM}, not {pixel_size_um!r}"
        )
    return side
