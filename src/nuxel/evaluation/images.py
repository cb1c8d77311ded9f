"""The images that label images belong to, for pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.data.image_names import image_name, match_names
from nuxel.data.label_sets import LabelArray, LabelFile, MaskFolder, OutlineFile
from nuxel.errors import NuxelError, UsageError
from nuxel.evaluation.evaluate import Evaluation
from nuxel.image.find import find_images
from nuxel.image.layout import IMAGES, LABELS, MASKS, Listings, is_named
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image


def find_displays(evaluation: Evaluation, folder: Path | None = None) -> dict[str, Path]:
    """The image file of each image that has one.

    Parameters
    ----------
    evaluation
        Says which images, and where their truth is.
    folder
        Where the images are. Without it, folders ``images`` beside the truth are searched.

    Raises
    ------
    UsageError
        If there is no image in the folder.
    """
    if folder is None:
        candidates = dict(_beside_truth(evaluation))
    else:
        candidates = {image_name(found.relative): found.path for found in find_images([folder])}
    nameless = all(isinstance(pair.truth, LabelArray) for pair in evaluation.pairs)
    partner = match_names([row.image for row in evaluation.images], candidates, lone=nameless)
    return {image: candidates[name] for image, name in partner.items()}


def _beside_truth(evaluation: Evaluation) -> Iterator[tuple[str, Path]]:
    """Images in folders ``images`` beside the folder ``masks`` or ``labels`` of each truth, in the same sub-folder."""
    listed: dict[Path, dict[str, Path]] = {}
    listings = Listings()
    for pair in evaluation.pairs:
        if not isinstance(pair.truth, LabelFile | MaskFolder | OutlineFile):
            continue
        above = pair.truth.path.parent
        named = (one for one in (above, *above.parents) if is_named(one.name, LABELS, MASKS))
        labels = next((one for one in named if listings.folder(one.parent, IMAGES)), above)
        if isinstance(pair.truth, MaskFolder):
            labels = above = pair.truth.path
        folder = listings.folder(labels.parent, IMAGES)
        if folder is None:
            continue
        if folder not in listed:
            listed[folder] = _images_in(folder)
        name = (above.relative_to(labels) / pair.image.rpartition("/")[2]).as_posix()
        if name in listed[folder]:
            yield pair.image, listed[folder][name]


def _images_in(folder: Path) -> dict[str, Path]:
    try:
        return {image.relative.as_posix(): image.path for image in find_images([folder])}
    # Nobody named this folder: that it is missing or empty is no mistake.
    except UsageError:
        return {}


def read_display(path: Path | None, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8] | None, str]:
    """The image as it is shown, ``(H, W, 3)`` uint8, or None and the reason why it is not."""
    if path is None:
        return None, "no image was found (--images DIR)"
    try:
        pixels = normalise(read_image(path).pixels)
    except NuxelError as error:
        return None, str(error)
    if pixels.shape[:2] != shape:
        return (
            None,
            f"{path} is {pixels.shape[0]} x {pixels.shape[1]} pixels, its labels {shape[0]} x {shape[1]}",
        )
    return pixels, ""
