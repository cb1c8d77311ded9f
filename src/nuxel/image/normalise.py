"""From pixels of any type and range to what every network sees: uint8 RGB, stretched over the whole image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (0.5, 99.8)
EMPTY_CHANNEL = 0.15
"""A channel with less than this share of the strongest channel's contrast holds no stain."""

_EXTREMES = (0.0, 100.0)
_BAND_ROWS = 512
_SAMPLE = 1 << 22


def normalise(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Stretch an image of any dtype to uint8 RGB with one linear map taken from the whole image.

    The map sends the lowest 0.5th percentile of the channels to 0 and the highest 99.8th to 255, the same for all
    channels, so that colours keep their hue. Where these are equal (a few bright pixels on an even background), it
    uses the least and the greatest value instead. A stain that sits in one channel only (DAPI shown in blue) is
    shown as grey. Bright and dark backgrounds are left as they are: the networks are trained on both.

    Percentiles are those of all pixels for integers of up to 16 bits. For wider types they are taken from every
    pixel up to 4 million pixels, and from a regular grid of about as many beyond.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)`` with at least one pixel, any real dtype. Infinite values are shown as white and
        black, NaN as black, and neither counts for the percentiles. Of two channels the first is shown, of more
        than three the first three.

    Returns
    -------
    ``(H, W, 3)`` uint8. A constant image is all zeros.

    Examples
    --------
    >>> normalise(np.array([[0, 500, 1000]], np.uint16))[0, :, 0].tolist()
    [0, 127, 255]
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    pixels = pixels.view(np.uint8) if pixels.dtype == bool else pixels
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    low, high = _limits(pixels, PERCENTILES)
    if not (high > low).any():
        low, high = _limits(pixels, _EXTREMES)
    with np.errstate(over="ignore"):
        if not np.isfinite(high - low).all():  # of two of the largest numbers even the difference is none
            pixels, low, high = pixels.astype(np.float64) / 4, low / 4, high / 4
    contrast = high - low
    stained = contrast > EMPTY_CHANNEL * contrast.max()
    if stained.sum() == 1:
        pixels, low, high = pixels[..., stained], low[stained], high[stained]
    return _stretch(pixels, float(low.min()), float(high.max()))


def _limits(pixels: NDArray[np.generic], percentiles: tuple[float, float]) -> NDArray[np.float64]:
    """``(2, C)``: the low and the high percentile of the finite values of each channel, 0 where there are none."""
    of_channel = _histogram_percentiles if _is_narrow(pixels.dtype) else _sample_percentiles
    return np.array([of_channel(pixels[..., c], percentiles) for c in range(pixels.shape[2])], np.float64).T


def _is_narrow(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _codes(pixels: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    """The bit patterns of narrow integers, as places in a table of all values."""
    codes: NDArray[np.unsignedinteger] = pixels.view(f"u{pixels.dtype.itemsize}")
    return codes


def _all_values(dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Every value of a narrow integer type, in the order of the bit patterns."""
    return np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)


def _histogram_percentiles(channel: NDArray[np.generic], percentiles: tuple[float, float]) -> list[float]:
    values = _all_values(channel.dtype)
    counts = np.zeros(len(values), np.int64)
    for top in range(0, len(channel), _BAND_ROWS):
        band = _codes(channel[top : top + _BAND_ROWS])
        counts += np.bincount(band.ravel(), minlength=len(values))
    order = np.argsort(values)
    ranks = np.rint(np.array(percentiles) / 100 * (channel.size - 1))
    places = np.searchsorted(np.cumsum(counts[order]), ranks, side="right")
    return [float(value) for value in values[order[places]].astype(np.float64)]


def _sample_percentiles(channel: NDArray[np.generic], percentiles: tuple[float, float]) -> list[float]:
    step = int(np.ceil(np.sqrt(channel.size / _SAMPLE)))
    values = channel[::step, ::step].astype(np.float64).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        return [0.0, 0.0]
    return [float(value) for value in np.percentile(values, percentiles, method="nearest")]


def _stretch(pixels: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    out = np.zeros((*pixels.shape[:2], 3), np.uint8)
    if not high > low:
        return out
    narrow = _is_narrow(pixels.dtype)
    table = _shade(_all_values(pixels.dtype), low, high) if narrow else None
    for top in range(0, len(pixels), _BAND_ROWS):
        band = pixels[top : top + _BAND_ROWS]
        out[top : top + _BAND_ROWS] = (
            _shade(band, low, high) if table is None else _look_up(table, _codes(band))
        )
    return out


def _look_up(table: NDArray[np.uint8], codes: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    if codes.dtype == np.uint8:  # in a third of the time of indexing
        shaded = np.frombuffer(codes.tobytes().translate(table.tobytes()), np.uint8).reshape(codes.shape)
    else:
        shaded = table[codes]
    return shaded


def _shade(values: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    """0 at ``low`` and below, 255 at ``high`` and above, linear between."""
    within = np.clip(values.astype(np.float64), low, high)
    return np.nan_to_num((within - low) / (high - low) * 255).astype(np.uint8)
