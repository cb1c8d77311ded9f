"""Validation's IoU of the maps, where it is known what the network draws."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.data.targets import TargetRule, multihead_targets
from nuxel.decode.detections import DetectionRule, Detections
from nuxel.export.overlay import draw_overlay
from nuxel.image.resample import ScaledImage
from nuxel.instances import Instances
from nuxel.predict.card import ModelCard
from nuxel.predict.detect import find
from nuxel.systems.multihead_unet import MultiheadUNet
from nuxel.tiling.grid import Box, crop
from nuxel.training import validate
from nuxel.training.recipe import make_recipe
from nuxel.training.validate import Validation


class Shown:
    """Draws what the image shows: nuclei in red, shrunk nuclei in green, touching borders in blue."""

    def __init__(self, toy_card: ModelCard, system: MultiheadUNet) -> None:
        self.module = SimpleNamespace(recipe=SimpleNamespace(system=system))
        rule = {**toy_card.decoder_rule, "split": system.decoder_rule.split}
        self.card = ModelCard(**{**vars(toy_card), "maps": system.masks, "decoder_rule": rule})

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = np.moveaxis(window, 2, 0).astype(np.float32) / 255
        return crop(drawn[: len(self.card.maps)], inner)


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
    assert validation.scores() == {
        "mAP": 1, "AP50": 1, "AJI": 1, "NCS": 1, "precision": 1, "recall": 1,
        "IoU_foreground": 1, "IoU_nucleus": 1, "IoU_touching": 1,
    }  # fmt: skip


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


def test_an_image_that_nobody_annotated_is_not_counted(toy_card: ModelCard) -> None:
    labels = two_neighbours()
    alone, both = Validation(Shown(toy_card, THREE)), Validation(Shown(toy_card, THREE))
    for validation in (alone, both):
        validation.add(image_of(labels), np.where(labels == 2, 3, labels * 0).astype(np.int32))
    both.add(image_of(labels), np.full_like(labels, -1))
    assert both.scores() == alone.scores()
    assert alone.scores()["mAP"] < 1


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


class Finder:
    """Finds a box around every red patch, as sure of it as it is red; its map is what is green."""

    def __init__(self, toy_card: ModelCard, *, with_map: bool = True) -> None:
        maps = (*DetectionRule().maps, *(("nucleus",) if with_map else ()))
        rule = dataclasses.asdict(DetectionRule(min_area=1, mask_nms=1.0))
        changes = {"decoder": "detections", "decoder_rule": rule, "maps": maps, "window": 32, "most": 100}
        self.card = ModelCard(**{**vars(toy_card), **changes, "context": "global"})

    def detect(self, window: NDArray[np.uint8]) -> Detections:
        red = window[..., 0]
        places = ndimage.find_objects(ndimage.label(red)[0])
        boxes = [(y.start, x.start, y.stop, x.stop) for y, x in places]
        scores = np.array([red[place].max() / 255 for place in places], np.float32)
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4), scores, np.ones((len(boxes), 4, 4), np.float32)
        )

    def map_of(self, window: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        assert name == "nucleus"
        return window[..., 1].astype(np.float32) / 255


def seen(boxes: dict[tuple[int, int, int, int], int], labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """A picture of red boxes, whose green is the labels."""
    image = np.zeros((*labels.shape, 3), np.uint8)
    for (y0, x0, y1, x1), sure in boxes.items():
        image[y0:y1, x0:x1, 0] = sure
    image[..., 1] = (labels > 0) * 255
    return image


LEFT, RIGHT = (4, 4, 14, 14), (20, 20, 30, 26)


def two_boxes() -> NDArray[np.int32]:
    labels = np.zeros((48, 48), np.int32)
    for number, (y0, x0, y1, x1) in enumerate((LEFT, RIGHT), 1):
        labels[y0:y1, x0:x1] = number
    return labels


class TestDetections:
    def test_all_is_one_where_everything_is_found_at_the_right_place(self, toy_card: ModelCard) -> None:
        validation = Validation(Finder(toy_card))
        truth = two_boxes()
        validation.add(seen({LEFT: 250, RIGHT: 200}, truth), truth)
        assert validation.scores() == {
            "mAP": 1, "AP50": 1, "AJI": 1, "NCS": 1, "precision": 1, "recall": 1,
            "IoU_foreground": 1, "box_AP50": 1, "pixel_accuracy": 1,
        }  # fmt: skip

    def test_boxes_of_all_images_are_ranked_together(self, toy_card: ModelCard) -> None:
        """Two of three are found, behind a false one: precision 0, 1/2, 2/3 at recall 0, 1/3, 2/3. The decoder drops
        what is below one half; average precision does not."""
        validation = Validation(Finder(toy_card))
        truth = two_boxes()
        validation.add(seen({(36, 36, 42, 42): 250, LEFT: 100}, truth), truth)
        one = np.where(truth == 2, truth, 0).astype(np.int32)
        validation.add(seen({RIGHT: 90}, one), one)
        scores = validation.scores()
        assert scores["box_AP50"] == pytest.approx(2 / 3 * 2 / 3)
        assert scores["AP50"] == 0
        assert scores["pixel_accuracy"] == 1

    def test_a_box_that_two_windows_find_counts_once(self, toy_card: ModelCard) -> None:
        """In the middle of the image all four windows see it, and own its middle."""
        validation = Validation(Finder(toy_card))
        truth = np.zeros((48, 48), np.int32)
        truth[21:27, 21:27] = 1
        image = seen({(21, 21, 27, 27): 255}, truth)
        assert len(find(ScaledImage(image, 1.0), validation.network).detections) > 1
        validation.add(image, truth)
        validation.add(seen({LEFT: 100}, two_boxes()), np.where(two_boxes() == 1, 1, 0).astype(np.int32))
        assert validation.scores()["box_AP50"] == 1

    def test_what_nobody_annotated_counts_for_nothing(self, toy_card: ModelCard) -> None:
        validation = Validation(Finder(toy_card))
        labels = two_boxes()
        truth = np.where(labels == 2, -1, labels).astype(np.int32)
        validation.add(seen({LEFT: 200, RIGHT: 250}, labels), truth)
        scores = validation.scores()
        assert (scores["box_AP50"], scores["pixel_accuracy"]) == (1, 1)

    def test_accuracy_is_of_the_map_if_there_is_one(self, toy_card: ModelCard) -> None:
        truth = two_boxes()
        image = seen({LEFT: 250, RIGHT: 250}, np.where(truth == 1, 1, 0))
        with_map, without = Validation(Finder(toy_card)), Validation(Finder(toy_card, with_map=False))
        with_map.add(image, truth)
        without.add(image, truth)
        assert with_map.scores()["pixel_accuracy"] == pytest.approx(1 - 60 / 48**2)
        assert without.scores()["pixel_accuracy"] == 1

    def test_nothing_at_all(self, toy_card: ModelCard) -> None:
        validation = Validation(Finder(toy_card))
        validation.add(np.zeros((40, 70, 3), np.uint8), np.zeros((40, 70), np.int32))
        assert validation.scores()["box_AP50"] == validation.scores()["pixel_accuracy"] == 1


def test_the_picture_has_the_prediction_above_the_truth() -> None:
    image = np.full((20, 30, 3), 9, np.uint8)
    predicted, true = np.zeros((2, 20, 30), np.int32)
    predicted[2:8, 2:8] = 1
    true[10:18, 20:28] = 1
    above, below = (draw_overlay(image, Instances(labels)) for labels in (predicted, true))
    assert not np.array_equal(above, below)
    shown = validate._beside(image, Instances(predicted), Instances(true))
    assert np.array_equal(shown[:20], above)
    assert np.array_equal(shown[24:], below)
