"""Folders of annotated images: which image belongs to which labels, and in which group."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.image.find import find_images
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.labels.read import read_labels


_LABEL_SUFFIXES = (".tif", ".tiff", ".png", ".npy")


@dataclass(frozen=True)
class Source:
    """One folder of annotated images, as a recipe names it.

    Parameters
    ----------
    folder
        Holds ``images/`` and ``labels/`` (same stems), or the competition's ``<id>/images/`` and ``<id>/masks/``.
    index
        A CSV in the folder with a column ``id`` (the image's stem) and any others.
    where
        Only images whose row in the index has these values.
    include
        Only images whose stem matches one of these patterns.
    group
        Columns of the index that tell groups apart; together with the folder's name they name the group.
    """

    folder: str
    index: str | None = None
    where: dict[str, str] = field(default_factory=dict)
    include: tuple[str, ...] = ("*",)
    group: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotated:
    """An image file and the label file, or the folder of masks, that goes with it."""

    image: Path
    labels: Path
    group: str


def find_annotated(source: Source) -> list[Annotated]:
    """The annotated images of a source, sorted by name.

    Raises
    ------
    NuxelError
        If the folder or the index is missing, an image has no labels, or nothing is selected.
    """
    folder = Path(source.folder)
    if not folder.is_dir():
        raise NuxelError(f"{folder}: no such folder of annotated images")
    rows = _index_rows(folder, source)
    found = []
    for item in find_images([folder]):
        image = item.path
        stem = image.stem
        row = rows.get(stem, {})
        if rows and (not row or any(row.get(key) != value for key, value in source.where.items())):
            continue
        if not any(fnmatch(stem, pattern) for pattern in source.include):
            continue
        group = "/".join([folder.name, *(row[column] for column in source.group)])
        found.append(Annotated(image, _labels_of(image), group))
    if not found:
        raise NuxelError(
            f"{folder}: no annotated image is selected (where = {source.where}, include = {source.include})"
        )
    return found


def _index_rows(folder: Path, source: Source) -> dict[str, dict[str, str]]:
    if source.index is None:
        if source.where or source.group:
            raise NuxelError(f"{folder}: `where` and `group` need an `index`")
        return {}
    path = folder / source.index
    if not path.is_file():
        raise NuxelError(f"{path}: no such index")
    with path.open(newline="") as file:
        rows = {row.get("id", ""): row for row in csv.DictReader(file)}
    columns = set(next(iter(rows.values()), {}))
    unknown = sorted({"id", *source.where, *source.group} - columns)
    if unknown:
        raise NuxelError(f"{path}: no column {', '.join(unknown)}; it has {', '.join(sorted(columns))}")
    return rows


def _labels_of(image: Path) -> Path:
    beside = image.parent.parent
    masks = beside / "masks"
    if masks.is_dir():
        return masks
    for suffix in _LABEL_SUFFIXES:
        path = beside / "labels" / (image.stem + suffix)
        if path.is_file():
            return path
    wanted = beside / "labels" / (image.stem + "{" + ",".join(_LABEL_SUFFIXES) + "}")
    raise NuxelError(f"{image}: no labels; expected {wanted} or a folder {masks}")


def read_annotated(item: Annotated) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The normalised image ``(H, W, 3)`` uint8 and its label image ``(H, W)`` int32.

    Raises
    ------
    NuxelError
        If either cannot be read or their shapes differ.
    """
    pixels = normalise(read_image(item.image).pixels)
    labels = read_masks(item.labels) if item.labels.is_dir() else read_labels(item.labels)
    if labels.shape != pixels.shape[:2]:
        raise NuxelError(
            f"{item.labels}: labels are {labels.shape}, but the image {item.image.name} is {pixels.shape[:2]}"
        )
    return pixels, labels


def read_masks(folder: Path) -> NDArray[np.int32]:
    """A label image from the competition's folder of masks, one file a nucleus; a later mask never covers an earlier one."""
    labels: NDArray[np.int32] | None = None
    for number, item in enumerate(sorted(folder.glob("*.png")), 1):
        mask = read_image(item).pixels.max(axis=2) > 0
        if labels is None:
            labels = np.zeros(mask.shape, np.int32)
        if mask.shape != labels.shape:
            raise NuxelError(f"{item}: the mask is {mask.shape}, the others in its folder are {labels.shape}")
        labels[mask & (labels == 0)] = number
    if labels is None:
        raise NuxelError(f"{folder}: a folder of masks without a PNG file")
    return labels
