"""Label images as TIFF."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from nuxel.export.atomic import replacing

_CLASSIC_LIMIT = (
    2**32 - 2**25
)  # bytes of pixels from which a classic TIFF may overflow, with room for its tags


def write_labels(
    path: Path | str,
    labels: NDArray[np.int32],
    pixel_size_um: float | None = None,
    description: str | None = None,
) -> None:
    """Write a label image as one int32 plane, deflated without loss.

    ImageJ, Fiji, QuPath and napari open it. There is no predictor, which ImageJ cannot undo for 32 bits.
    Above 4 GB of pixels it is a BigTIFF.

    Parameters
    ----------
    path
        Where to; an existing file is replaced.
    labels
        ``(H, W)`` int32 label image.
    pixel_size_um
        Side of a pixel in micrometres, kept in the resolution tags as pixels per centimetre.
    description
        ASCII text kept in the file's ImageDescription tag.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    with prepared_labels(path, labels, pixel_size_um, description):
        pass


@contextlib.contextmanager
def prepared_labels(
    path: Path | str,
    labels: NDArray[np.int32],
    pixel_size_um: float | None = None,
    description: str | None = None,
) -> Iterator[None]:
    """Write a label image that takes its name only once the block has ended well; see :func:`write_labels`."""
    per_cm = None if pixel_size_um is None else (1e4 / pixel_size_um,) * 2
    with replacing(path) as part:
        tifffile.imwrite(
            part,
            labels,
            bigtiff=labels.nbytes > _CLASSIC_LIMIT,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1},
            resolution=per_cm,
            resolutionunit=None if per_cm is None else "CENTIMETER",
            software="nuxel",
            description=description,
            metadata=None,
            maxworkers=1,
        )
        yield
