"""Where label images are: files, folders, mask folders, run-length tables; each under the name of its image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nuxel.data.dataset import read_masks
from nuxel.data.image_names import image_name
from nuxel.data.outlines import OUTLINE_SUFFIXES, read_outlines
from nuxel.errors import NuxelError, UsageError
from nuxel.image.formats import stem
from nuxel.image.layout import IMAGES, LABELS, MASKS, Listings, is_named, pick
from nuxel.labels.read import LABEL_SUFFIXES, read_labels
from nuxel.labels.relabel import relabel
from nuxel.labels.run_length import RunLengths, Shape, read_run_lengths
from nuxel.names import LABELS_END, OUTLINES_END, OVERLAY_END

PRODUCT_END = PurePath(LABELS_END).stem


class LabelSource(Protocol):
    """One label image that can be read when it is needed."""

    @property
    def where(self) -> str:
        """The file or folder, for messages."""

    @property
    def sized(self) -> bool:
        """Whether it can be read without knowing the shape of the image from elsewhere."""

    def read(self, shape: Shape | None) -> NDArray[np.int32]:
        """``(H, W)`` int32; of ``shape`` where the source is not sized."""


@dataclass(frozen=True)
class _OnDisk:
    path: Path

    @property
    def where(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class LabelFile(_OnDisk):
    """A TIFF, PNG or NPY file of labels."""

    sized: bool = True

    def read(self, shape: Shape | None) -> NDArray[np.int32]:  # noqa: ARG002
        return read_labels(self.path)


@dataclass(frozen=True)
class MaskFolder(_OnDisk):
    """The competition's folder of masks, one PNG a nucleus."""

    sized: bool = True

    def read(self, shape: Shape | None) -> NDArray[np.int32]:  # noqa: ARG002
        return read_masks(self.path)


@dataclass(frozen=True)
class OutlineFile(_OnDisk):
    """An Aperio XML or GeoJSON file of outlines."""

    sized: bool = False

    def read(self, shape: Shape | None) -> NDArray[np.int32]:
        if shape is None:
            raise NuxelError(
                f"{self.where}: outlines alone do not say how large the image is; compare them with label images."
            )
        return relabel(read_outlines(self.path, shape))


@dataclass(frozen=True, eq=False)
class RunLengthRows:
    """The rows of one image in a run-length CSV."""

    runs: RunLengths

    @property
    def where(self) -> str:
        return self.runs.source

    @property
    def sized(self) -> bool:
        return self.runs.shape is not None

    def read(self, shape: Shape | None) -> NDArray[np.int32]:
        shape = self.runs.shape or shape
        if shape is None:
            raise NuxelError(
                f"{self.where}: runs alone do not say how large the image is; compare them with label images, or add "
                "the columns Height and Width."
            )
        return self.runs.paint(shape)


@dataclass(frozen=True, eq=False)
class LabelArray:
    """A label image that is in memory already, and the score of each label, if they are known."""

    labels: NDArray[Any] = field(repr=False)
    where: str = "array"
    scores: dict[int, float] | None = field(default=None, repr=False)
    sized: bool = True

    def read(self, shape: Shape | None) -> NDArray[np.int32]:  # noqa: ARG002
        return self.labels


@dataclass(frozen=True)
class Nothing:
    """The empty label image that stands for a missing prediction."""

    where: str = "missing"
    sized: bool = False

    def read(self, shape: Shape | None) -> NDArray[np.int32]:
        return np.zeros(shape or (0, 0), np.int32)


def find_labels(given: str | os.PathLike[str]) -> dict[str, LabelSource]:
    """Every label image of a file or folder, under the name of its image.

    The name is the path below the folder without extension, ``_labels``, and folders ``images``, ``labels``, ``masks``.

    A file is a run-length CSV (see :func:`nuxel.labels.run_length.read_run_lengths`), a file of outlines, Aperio XML or
    GeoJSON (see :func:`nuxel.data.outlines.read_outlines`), or a label image. In a folder, sub-folders included, the
    labels are the first of these that there is, and nothing else:

    - the files in folders ``labels`` that stand beside a folder ``images`` (or ``masks``, if named like the images);
    - the competition's ``<id>/masks/*.png``;
    - files ``*_labels.tif`` (or ``.png``, ``.npy``), as ``nuxel segment`` writes them, and files of outlines for what
      has no such label image: other images that lie beside them are none of their labels;
    - all TIFF, PNG and NPY files.

    Raises
    ------
    UsageError
        If there is no such file or folder, no label image in it, or two for the same image.
    NuxelError
        If a CSV is no run-length file.
    """
    path = Path(given)
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return {image: RunLengthRows(runs) for image, runs in read_run_lengths(path).items()}
        return {_bare_name(path): OutlineFile(path) if _is_outlines(path) else LabelFile(path)}
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such file or folder")
    found: dict[str, LabelSource] = {}
    for source in _in_folder(path):
        name = _name_of(source, path)
        if name in found:
            raise UsageError(
                f"{found[name].where} and {source.where} would both be the labels of image '{name}': remove one"
            )
        found[name] = source
    if not found:
        raise UsageError(
            f"{path}: no label image in this folder or below it "
            f"(looked for {', '.join((*LABEL_SUFFIXES, *OUTLINE_SUFFIXES))} files and folders {MASKS})"
        )
    return found


def _in_folder(folder: Path) -> Sequence[LabelFile | MaskFolder | OutlineFile]:
    """The first kind of labels that there are, in the order in which :func:`find_labels` names them."""
    masks: list[MaskFolder] = []
    annotated: list[LabelFile | OutlineFile] = []
    files: list[LabelFile] = []
    outlines: list[OutlineFile] = []
    listings = Listings()
    for here, folders, names in _walk(folder):
        images_here, masks_here = pick(folders, IMAGES), pick(folders, MASKS)
        beside = here / images_here if images_here else None
        if masks_here and not _are_label_images(here / masks_here, beside):
            masks.append(MaskFolder(here / masks_here))
            folders.clear()
            continue
        if images_here and any(is_named(name, LABELS, MASKS) for name in folders):
            folders.remove(images_here)
        labels = [LabelFile(here / name) for name in names if _may_be_labels(name)]
        files += labels
        drawn = [
            OutlineFile(here / name)
            for name in names
            if _is_outlines(PurePath(name)) and _beside_outlines(name) not in names
        ]
        outlines += drawn
        if here != folder and _is_annotation(here, folder, listings):
            annotated += [*labels, *drawn]
    products = [file for file in files if stem(file.path).endswith(PRODUCT_END)]
    done = {_name_of(file, folder) for file in products}
    alone = [file for file in outlines if _name_of(file, folder) not in done]
    return annotated or masks or [*products, *alone] or files


def _may_be_labels(name: str) -> bool:
    return PurePath(name).suffix.lower() in LABEL_SUFFIXES and not name.endswith(OVERLAY_END)


def _is_outlines(path: PurePath) -> bool:
    return path.suffix.lower() in OUTLINE_SUFFIXES


def _beside_outlines(name: str) -> str:
    """The label image that ``nuxel propagate`` writes beside its outlines, and that counts in their place."""
    return (
        name.removesuffix(OUTLINES_END) if name.endswith(OUTLINES_END) else PurePath(name).stem
    ) + LABELS_END


def _is_annotation(folder: Path, root: Path, listings: Listings) -> bool:
    """Whether it is, or lies in, a folder ``labels`` or ``masks`` beside a folder ``images``, both below the root."""
    below = [folder, *folder.parents][: len(folder.relative_to(root).parts)]
    return any(is_named(part.name, LABELS, MASKS) and listings.folder(part.parent, IMAGES) for part in below)


def _are_label_images(masks: Path, images: Path | None) -> bool:
    """Whether they are named like the images, so that each is a label image and not one nucleus."""
    if images is None:
        return False
    return not {stem(path) for path in images.iterdir()}.isdisjoint(stem(path) for path in masks.iterdir())


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    visited: set[str] = set()  # each real folder once, so that loops of links end
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(here), folders, sorted(name for name in names if not name.startswith("."))


def _name_of(source: LabelFile | MaskFolder | OutlineFile, root: Path) -> str:
    if isinstance(source, MaskFolder):
        image = source.path.parent
        return image.relative_to(root).as_posix() if image != root else root.resolve().name
    return image_name(source.path.relative_to(root).with_name(_bare_name(source.path)))


def _bare_name(path: Path) -> str:
    if path.name.endswith(OUTLINES_END):
        return path.name.removesuffix(OUTLINES_END)
    bare = path.stem if path.suffix.lower() in (".npy", *OUTLINE_SUFFIXES) else stem(path)
    return bare.removesuffix(PRODUCT_END) or bare
