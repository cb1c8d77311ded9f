"""Folders of annotated images: which image belongs to which labels, and in which group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.data.image_names import composed
from nuxel.data.index import read_index_rows
from nuxel.data.outlines import OUTLINE_SUFFIXES, read_outlines
from nuxel.data.thin import UNKNOWN
from nuxel.errors import NuxelError
from nuxel.image.choose import read_z
from nuxel.image.find import find_images
from nuxel.image.formats import is_image_name, stem
from nuxel.image.layout import IMAGES, LABELS, MASKS, Listings, is_named
from nuxel.image.normalise import normalise
from nuxel.image.read import Reading, read_image
from nuxel.labels.read import read_labels
from nuxel.labels.relabel import relabel
from nuxel.names import LABELS_END, OUTLINES_END

_LABEL_SUFFIXES = (".tif", ".tiff", ".png", ".npy", ".ome.tif", ".ome.tiff")
_LABEL_ENDS = (*_LABEL_SUFFIXES, LABELS_END, *OUTLINE_SUFFIXES, OUTLINES_END)
"""A label image counts before outlines; some ends are those of what nuxel itself writes."""


@dataclass(frozen=True)
class Source:
    """One folder of annotated images, as a recipe names it.

    Parameters
    ----------
    folder
        Holds, itself or in sub-folders, ``images/`` and ``labels/`` (or ``masks/``) with the same sub-folders and
        stems (or ``<stem>_labels.tif`` and ``<stem>_nuclei.geojson``, as nuxel itself writes them); or the
        competition's ``<id>/images/`` with one image and ``<id>/masks/`` with one mask a nucleus; or images beside
        which are files of outlines of the same stem, Aperio XML, as MoNuSeg has them, or GeoJSON.
    index
        A CSV in the folder with a column ``id`` (the image's stem) and any others. Images that it does not name
        are left out.
    where
        Only images whose row in the index has these values.
    include
        Only images whose stem matches one of these patterns (case counts); a pattern that begins with ``/`` is
        compared with the file's place below the folder instead: ``/plate1/images/*``.
    group
        Columns of the index that tell groups apart; together with the folder they name the group.
    channel, z, t
        What to read of images that hold several; see :func:`nuxel.image.read.read_image`.
    """

    folder: str
    index: str | None = None
    where: dict[str, str] = field(default_factory=dict)
    include: tuple[str, ...] = ("*",)
    group: tuple[str, ...] = ()
    channel: str | None = None
    z: str | None = None
    t: int | None = None


@dataclass(frozen=True)
class Annotated:
    """An image file and the label file, or the folder of masks, that goes with it; and what to read of the image.

    If it is ``partial``, 0 in its labels means not annotated, rather than background.
    """

    image: Path
    labels: Path
    group: str
    partial: bool = False
    reading: Reading = field(default_factory=Reading)


def find_annotated(source: Source) -> list[Annotated]:
    """The annotated images of a source, sorted by name.

    Raises
    ------
    NuxelError
        If the folder or the index is missing or unreadable, an image has no labels, or nothing is selected.
    """
    folder = Path(source.folder)
    if not folder.is_dir():
        raise NuxelError(f"{folder}: no such folder of annotated images")
    rows = _index_rows(folder, source)
    reading = Reading(source.channel, None if source.z is None else read_z(source.z), source.t)
    found, listings = [], Listings()
    for item in find_images([folder]):
        name, place = stem(item.path), place_of(item.path, folder)
        row = {} if rows is None else rows.get(composed(name))
        if row is None or any(row[column] != value for column, value in source.where.items()):
            continue
        if not any(fnmatchcase(place if pattern[:1] == "/" else name, pattern) for pattern in source.include):
            continue
        group = "/".join([folder.as_posix(), *(row[column] for column in source.group)])
        found.append(Annotated(item.path, _labels_of(item.path, listings), group, reading=reading))
    if not found:
        index = "" if source.index is None else f"index = {source.index}, whose ids are file stems, "
        raise NuxelError(
            f"{folder}: no annotated image is selected ({index}where = {source.where}, include = {source.include})"
        )
    return found


def place_of(image: Path, folder: Path) -> str:
    """Where an image lies below a folder, as patterns of :class:`Source` are compared with: ``/images/a.png``."""
    return f"/{image.relative_to(folder).as_posix()}"


def find_all(sources: Iterable[Source]) -> list[Annotated]:
    """The annotated images of several sources, one after another."""
    return [item for source in sources for item in find_annotated(source)]


def _index_rows(folder: Path, source: Source) -> dict[str, dict[str, str]] | None:
    """The rows of the index by image; None without an index."""
    if source.index is None:
        if source.where or source.group:
            raise NuxelError(f"{folder}: `where` and `group` need an `index`")
        return None
    path = folder / source.index
    if not path.is_file():
        raise NuxelError(f"{path}: no such index")
    columns, rows = read_index_rows(path, ["id"])
    if unknown := sorted({*source.where, *source.group} - set(columns)):
        raise NuxelError(f"{path}: no column {', '.join(unknown)}; it has {', '.join(sorted(columns))}")
    return rows


def _labels_of(image: Path, listings: Listings) -> Path:
    name = stem(image)
    images = next((parent for parent in image.parents if is_named(parent.name, IMAGES)), None)
    outlines = listings.file(image.parent, name, (*OUTLINE_SUFFIXES, OUTLINES_END))
    if images is None:
        if outlines is not None:
            return outlines
        raise NuxelError(f"{image}: no labels; put it in a folder `{IMAGES}` beside a folder `{LABELS}`")
    below = image.parent.relative_to(images)
    labels, masks = (listings.folder(images.parent, wanted) for wanted in (LABELS, MASKS))
    for folder in (labels, masks):
        if folder is not None and (path := listings.file(folder / below, name, _LABEL_ENDS)) is not None:
            return path
    if masks is not None and sum(is_image_name(path) for path in image.parent.iterdir()) == 1:
        return masks
    if outlines is not None:
        return outlines
    wanted = images.parent / LABELS / below / f"{name}{{{','.join((*_LABEL_SUFFIXES, *OUTLINE_SUFFIXES))}}}"
    raise NuxelError(
        f"{image}: no labels; expected {wanted}, or for an image alone in its folder {images.parent / MASKS}"
    )


def read_annotated(item: Annotated) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The normalised image ``(H, W, 3)`` uint8 and its label image ``(H, W)`` int32, numbered without gaps.

    Raises
    ------
    NuxelError
        If either cannot be read or their shapes differ.
    """
    pixels = normalise(read_image(item.image, **asdict(item.reading)).pixels)
    shape = (pixels.shape[0], pixels.shape[1])
    if item.labels.is_dir():
        labels = read_masks(item.labels)
    elif item.labels.suffix.lower() in OUTLINE_SUFFIXES:
        labels = relabel(read_outlines(item.labels, shape))
    else:
        labels = relabel(read_labels(item.labels))
    if labels.shape != shape:
        raise NuxelError(
            f"{item.labels}: labels are {labels.shape}, but the image {item.image.name} is {shape}"
        )
    if item.partial:
        labels[labels == 0] = UNKNOWN
    return pixels, labels


def read_masks(folder: Path) -> NDArray[np.int32]:
    """A label image from the competition's folder of masks, one PNG file a nucleus, in the order of their names.

    Where masks overlap the earlier one wins; a mask that is empty or wholly covered has no label left.

    Raises
    ------
    NuxelError
        If the folder holds no PNG file, or their shapes differ, or one cannot be read, or the only one is a label
        image.
    """
    labels: NDArray[np.int32] | None = None
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith(".")
    )
    for number, item in enumerate(files, 1):
        pixels = read_image(item).pixels.max(axis=2)
        values = np.unique(pixels[pixels > 0])
        if len(files) == 1 < len(values) and np.array_equal(values, np.arange(1, len(values) + 1)):
            raise NuxelError(
                f"{item}: holds the numbers 1 to {len(values)}, where a mask is of one nucleus; name a label image "
                "like its image"
            )
        mask = pixels > 0
        if labels is None:
            labels = np.zeros(mask.shape, np.int32)
        if mask.shape != labels.shape:
            raise NuxelError(f"{item}: the mask is {mask.shape}, the others in its folder are {labels.shape}")
        labels[mask & (labels == 0)] = number
    if labels is None:
        raise NuxelError(f"{folder}: a folder of masks without a PNG file")
    return relabel(labels)
