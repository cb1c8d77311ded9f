"""Which annotations and which truth belong to which image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nuxel.data.image_names import image_name, match_names
from nuxel.data.label_sets import LabelSource, find_labels
from nuxel.errors import UsageError
from nuxel.image.find import FoundImage, find_images, refuse_collisions


@dataclass(frozen=True)
class Task:
    """An image, what is annotated of it, and all its nuclei, each if there is such."""

    image: FoundImage
    annotations: LabelSource | None
    truth: LabelSource | None = None


def find_tasks(images: Sequence[str], annotations: Path, truth: Path | None = None) -> tuple[list[Task], int]:
    """A task for each image, and how many annotations belong to none of them.

    Parameters
    ----------
    images
        As :func:`nuxel.image.find.find_images` takes them.
    annotations, truth
        As :func:`nuxel.data.label_sets.find_labels` takes them, named like the images; a file belongs to a single
        image whatever its name.

    Raises
    ------
    UsageError
        If an input is missing or holds nothing, two images have one name, or no label image has the name of an image.
    """
    found = find_images(images)
    refuse_collisions(found)
    named = {image_name(item.relative): item for item in found}
    if len(named) < len(found):
        raise UsageError("two of the images have the same name but for folders 'images'; run them separately")
    annotated, unmatched = _labels_of(named, annotations)
    true = _labels_of(named, truth)[0] if truth else {}
    return [Task(item, annotated.get(name), true.get(name)) for name, item in named.items()], unmatched


def _labels_of(images: dict[str, FoundImage], given: Path) -> tuple[dict[str, LabelSource], int]:
    labels = find_labels(given)
    partner = match_names(images, labels, lone=given.is_file())
    if not partner:
        raise UsageError(f"{given}: no label image there has the name of an image; name them alike")
    return {name: labels[other] for name, other in partner.items()}, len(labels) - len(partner)
