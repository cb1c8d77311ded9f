"""Validation as it will be used: the pipeline, decoder and metric of prediction, on whole images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision.ops import nms

from nuxel.data.dataset import Annotated, read_annotated
from nuxel.decode.decoders import DETECTIONS
from nuxel.decode.detections import DetectionRule, Detections
from nuxel.export.atomic import replacing
from nuxel.export.overlay import draw_overlay
from nuxel.export.png import encode_png
from nuxel.image.resample import ScaledImage, resize_labels
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, normalised_coverage
from nuxel.metrics.average_precision import DSB2018_THRESHOLDS, MatchTally
from nuxel.metrics.box_average_precision import Boxes, voc_average_precision
from nuxel.metrics.overlap import overlap_table
from nuxel.metrics.pixels import foreground_iou, pixel_accuracy
from nuxel.predict.card import ModelCard
from nuxel.predict.detect import Found, attention_of
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, decode_seen, decoder_rule, look_at
from nuxel.tiling.grid import Box, crop

if TYPE_CHECKING:
    from nuxel.training.module import TrainingModule

Whole = tuple[NDArray[np.uint8], NDArray[np.int32]]
_PICTURED = 6
_MEASURED = ("nucleus", "touching")
_NUCLEUS = "nucleus"
_MAP_CUT = 0.5
ScoredBoxes = tuple[Boxes, Boxes, NDArray[np.float64]]
"""Of an image the true boxes, those that are found, and the scores of the latter."""
_REPEATED = 0.5
"""Of two boxes with a greater IoU, from neighbouring windows, the one with the lower score is a repetition."""


class WholeImages(Dataset[Whole]):
    """Annotated images as they are, read when asked for."""

    def __init__(self, items: Sequence[Annotated]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Whole:
        return read_annotated(self.items[index])


class TorchNetwork:
    """A module in training, as the prediction pipeline wants it: windows in, maps or detections out."""

    def __init__(self, module: TrainingModule, card: ModelCard) -> None:
        self.module, self.card = module, card

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        maps: NDArray[np.float32] = self._answer(window)[0].float().cpu().numpy()
        return crop(maps, inner)

    def release(self) -> None:
        """Nothing: PyTorch keeps what it will need for the next step."""

    def detect(self, window: NDArray[np.uint8]) -> Detections:
        count = len(DetectionRule().maps)
        return Detections(*(output.float().cpu().numpy() for output in self._answer(window)[:count]))

    def map_of(self, window: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        """One of the outputs of a window, ``(h, w)``."""
        output: NDArray[np.float32] = (
            self._answer(window)[self.card.maps.index(name)][0].float().cpu().numpy()
        )
        return output

    @torch.no_grad()
    def _answer(self, window: NDArray[np.uint8]) -> Any:
        device = next(self.module.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1)[None])).to(device)
        return self.module(image.float() / 255)


class Validation:
    """Scores and pictures of one pass over the validation images."""

    def __init__(self, network: TorchNetwork) -> None:
        self.network = network
        self.tally = MatchTally(DSB2018_THRESHOLDS)
        self.pictures: list[NDArray[np.uint8]] = []
        self.overlaps = {name: np.zeros(2, np.int64) for name in self._names() if name in _MEASURED}
        self.covered: list[tuple[float, float]] = []
        self.foregrounds: list[float] = []
        self.accuracies: list[float] = []
        self.boxes: list[ScoredBoxes] = []

    def add(self, image: NDArray[np.uint8], truth: NDArray[np.int32]) -> None:
        """Segment one image and compare it, and the maps that it was made from, with its labels.

        Of an image without an annotated pixel nothing is known, and nothing is counted.
        """
        if (truth < 0).all():
            return
        card, options = self.network.card, Options()
        _, seen = look_at(image, self.network, options)
        nuclei = decode_seen(seen, image.shape[:2], card, options)
        table = overlap_table(truth, nuclei.labels)
        self.tally.add(table)
        self.covered.append((aggregated_jaccard(table), normalised_coverage(table)))
        self.foregrounds.append(foreground_iou(truth, nuclei.labels))
        if isinstance(seen, Found):
            self.boxes.append(compared_boxes(seen.detections, truth))
            self.accuracies.append(pixel_accuracy(truth, foreground_of(image, nuclei.labels, self.network)))
        else:
            self._compare(seen, truth)
        if len(self.pictures) < _PICTURED:
            self.pictures.append(_beside(image, nuclei, Instances(np.maximum(relabel(truth), 0))))

    def _names(self) -> tuple[str, ...]:
        """The maps that the decoder reads, in its order."""
        return decoder_rule(self.network.card, Options()).maps

    def _compare(self, maps: NDArray[np.uint8], truth: NDArray[np.int32]) -> None:
        """Count the annotated pixels that map and target share, and those that either has, at the maps' scale."""
        system = self.network.module.recipe.system
        labels = resize_labels(truth, (maps.shape[1], maps.shape[2]))
        targets, annotated = system.draw_targets(labels), labels >= 0
        for name, values in zip(self._names(), maps, strict=True):
            if name in self.overlaps:
                predicted = (values >= 128) & annotated
                wanted = (targets[system.masks.index(name)] > 0) & annotated
                self.overlaps[name] += [(predicted & wanted).sum(), (predicted | wanted).sum()]

    def scores(self) -> dict[str, float]:
        """Scores by name, each in ``[0, 1]``.

        ``mAP``, ``AP50``, ``AJI``, ``NCS`` and ``IoU_foreground`` are means over images: of the Data Science Bowl's
        mAP, of AP at 0.5, of the aggregated Jaccard index, of the normalised coverage score, and of the IoU of all
        pixels of nuclei with all true ones (FCN-8s and Mask R-CNN paper, figure 4).
        ``precision`` and ``recall`` are those at 0.5 of the nuclei of all images together (partially labeled exemplars
        paper, figure 4).
        ``IoU_nucleus`` and ``IoU_touching`` compare the maps of nuclei and of touching borders, cut at 0.5, with their
        targets, the pixels of all images together (multi-head U-Net paper, figures 5 and 6); a map that the decoder
        does not read has none, and where neither map nor target has a pixel it is 1.

        Of a system that detects, ``box_AP50`` is the average precision of VOC of all boxes of all images before the
        decoder has seen them, and ``pixel_accuracy`` the mean over images of the share of pixels that are called right,
        nucleus or background, by the map of nuclei or, of a system without one, by the nuclei (US-Net paper, figure 2).
        """
        pooled = self.tally.pooled()
        aji, ncs = np.mean(self.covered, axis=0)
        overlaps = {
            f"IoU_{name}": int(both) / int(either) if either else 1.0
            for name, (both, either) in self.overlaps.items()
        }
        return {
            "mAP": self.tally.mean_average_precision(),
            "AP50": float(self.tally.per_image().average_precision[:, 0].mean()),
            "AJI": float(aji),
            "NCS": float(ncs),
            "precision": float(pooled.precision[0]),
            "recall": float(pooled.recall[0]),
            "IoU_foreground": float(np.mean(self.foregrounds)),
            **overlaps,
            **self._detection_scores(),
        }

    def _detection_scores(self) -> dict[str, float]:
        if not self.boxes:
            return {}
        return {"box_AP50": boxes_ap50(self.boxes), "pixel_accuracy": float(np.mean(self.accuracies))}

    def write_picture(self, path: Path) -> None:
        """The first few images, predicted outlines above and true ones below, in one PNG."""
        height = max(picture.shape[0] for picture in self.pictures)
        padded = [
            np.pad(p, ((0, height - p.shape[0]), (0, 4), (0, 0)), constant_values=128) for p in self.pictures
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(encode_png(np.ascontiguousarray(np.hstack(padded))))


def compared_boxes(found: Detections, truth: NDArray[np.int32]) -> ScoredBoxes:
    """The boxes of an image's nuclei and of its detections; those around what nobody annotated count for nothing."""
    middle = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2).astype(int)
    y, x = middle.clip(0, np.array(truth.shape) - 1).T
    found = found.take(truth[y, x] >= 0)
    kept = nms(torch.from_numpy(found.boxes), torch.from_numpy(found.scores), _REPEATED).numpy()
    true_boxes = Instances(np.maximum(relabel(truth), 0)).boxes
    return true_boxes, found.boxes[kept], found.scores[kept].astype(np.float64)


def boxes_ap50(images: Sequence[ScoredBoxes]) -> float:
    """The average precision of VOC at 0.5 of all boxes of several images."""
    truth, found, scores = zip(*images, strict=True)
    return voc_average_precision(truth, found, scores)


def foreground_of(
    image: NDArray[np.uint8], labels: NDArray[np.int32], network: TorchNetwork | Model
) -> NDArray[np.int32]:
    """The foreground that a network sees: that of its own map, if it detects and has one beside, or of its nuclei."""
    if network.card.decoder != DETECTIONS or _NUCLEUS not in network.card.maps:
        return labels
    drawn = attention_of(
        ScaledImage(image, 1.0), lambda window: network.map_of(window, _NUCLEUS), network.card
    )
    return (drawn >= _MAP_CUT).astype(np.int32)


def _beside(image: NDArray[np.uint8], predicted: Instances, truth: Instances) -> NDArray[np.uint8]:
    side = 320
    pair = [draw_overlay(image, nuclei)[:side, :side] for nuclei in (predicted, truth)]
    return np.vstack([pair[0], np.full((4, pair[0].shape[1], 3), 128, np.uint8), pair[1]])
