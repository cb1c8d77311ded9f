"""The nuclei of many images in one table, as the 2018 Data Science Bowl takes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.export.atomic import open_text, replacing
from nuxel.export.csv_text import csv_line
from nuxel.labels.run_length import RunLengths


def write_run_lengths(path: Path | str, images: Iterable[tuple[str, NDArray[np.int32]]]) -> None:
    r"""Write ``ImageId,EncodedPixels``: one line a nucleus, runs counted from 1 down the columns.

    An image without nuclei has one line with an empty second field. Lines end in ``\n``; only one label image is in
    memory at a time.

    Parameters
    ----------
    path
        Where to; an existing file is replaced.
    images
        The name and the label image ``(H, W)`` int32 of each image.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    with replacing(path) as part, open_text(part) as file:
        file.write("ImageId,EncodedPixels\n")
        for name, labels in images:
            for runs in RunLengths.of(labels).nuclei or (np.zeros((0, 2), int),):
                file.write(csv_line([name, " ".join(map(str, runs.ravel().tolist()))]))
