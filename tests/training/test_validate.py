"""Validation's IoU of the maps, where it is known what the network draws."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from nuxel.data.targets import TargetRule, multihead_targets
from nuxel.predict.card import ModelCard
from nuxel.systems.multihead_unet import MultiheadUNet
from nuxel.training.recipe import make_recipe
from nuxel.training.validate import Validation


class Shown:
    """Draws what the image shows: nuclei in red, shrunk nuclei in green, touching borders in blue."""

    def __init__(self, toy_card: ModelCard, system: MultiheadUNet) -> None:
        self.module = SimpleNamespace(recipe=SimpleNamespace(system=system))
        rule = {**toy_card.decoder_rule, "split": system.decoder_rule.split}
        self.card = ModelCard(**{**vars(toy_card), "maps": system.masks, "decoder_rule": rule})

    def __call__(self, window: NDArray[np.uint8]) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = np.moveaxis(window, 2, 0).astype(np.float32) / 255
        return drawn[: len(self.card.maps)]


def system_with(heads: list[str], split: str) -> MultiheadUNet:
    network = {"weights": "none", "heads": heads}
    raw = {"system": "multihead_unet", "network": network, "decoder_rule": {"split": split}}
    return make_recipe(raw).system


THREE = system_with(["nucleus", "shrunk", "touching"], "watershed")


def two_neighbours() -> NDArray[np.int32]:
    """10 x 16 and 10 x 8 pixels side by side: 240 of nuclei, two columns of touching border of 12 rows."""
    labels = np.zeros((48, 48), np.int32)
    labels[10:20, 8:24], labels[10:20, 24:32] = 1, 2
    return labels


def image_of(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    return np.moveaxis(multihead_targets(labels, TargetRule())[:3] * 255, 0, 2).astype(np.uint8)


def test_all_is_one_where_the_maps_are_the_targets(toy_card: ModelCard) -> None:
    validation = Validation(Shown(toy_card, THREE))
    labels = two_neighbours()
    validation.add(image_of(labels), labels)
    assert validation.scores() == {"mAP": 1, "AP50": 1, "IoU_nucleus": 1, "IoU_touching": 1}


def test_pixels_of_all_images_are_pooled(toy_card: ModelCard) -> None:
    """240 of 240 pixels of nuclei in one image and 160 of 240 in the other; the border is there and is not."""
    validation = Validation(Shown(toy_card, THREE))
    labels = two_neighbours()
    image = image_of(labels)
    validation.add(image, labels)
    image[:, 24:, 0] = 0
    image[..., 2] = 0
    validation.add(image, labels)
    scores = validation.scores()
    assert scores["IoU_nucleus"] == pytest.approx(400 / 480)
    assert scores["IoU_touching"] == pytest.approx(0.5)
    assert scores["mAP"] == pytest.approx(0.75)


def test_what_nobody_annotated_counts_on_neither_side(toy_card: ModelCard) -> None:
    validation = Validation(Shown(toy_card, THREE))
    labels = two_neighbours()
    image = image_of(labels)
    image[30:40, 30:40, 0] = 255
    unsure = (image[..., 0] > 0) & (labels == 0)
    validation.add(image, np.where(unsure, -1, labels).astype(np.int32))
    assert validation.scores()["IoU_nucleus"] == 1
    validation.add(image, labels)
    assert validation.scores()["IoU_nucleus"] == pytest.approx(480 / 580)


def test_touching_borders_that_are_nowhere_are_found(toy_card: ModelCard) -> None:
    validation = Validation(Shown(toy_card, THREE))
    empty = np.zeros((32, 32), np.int32)
    validation.add(image_of(empty), empty)
    assert validation.scores()["IoU_touching"] == 1


def test_one_head_has_one_iou(toy_card: ModelCard) -> None:
    validation = Validation(Shown(toy_card, system_with(["nucleus"], "none")))
    labels = two_neighbours()
    validation.add(image_of(labels), labels)
    scores = validation.scores()
    assert scores["IoU_nucleus"] == 1
    assert "IoU_touching" not in scores
    assert scores["AP50"] == pytest.approx(0.5)
