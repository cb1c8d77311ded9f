"""Validation as it will be used: the pipeline, decoder and metric of prediction, on whole images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from nuxel.data.dataset import Annotated, read_annotated
from nuxel.export.overlay import draw_overlay
from nuxel.export.png import encode_png
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.metrics.average_precision import DSB2018_THRESHOLDS, MatchTally
from nuxel.predict.card import ModelCard
from nuxel.predict.pipeline import Options, segment_normalised

Whole = tuple[NDArray[np.uint8], NDArray[np.int32]]
_PICTURED = 6


class WholeImages(Dataset[Whole]):
    """Annotated images as they are, read when asked for."""

    def __init__(self, items: Sequence[Annotated]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Whole:
        return read_annotated(self.items[index])


class TorchNetwork:
    """A module in training, as the prediction pipeline wants it: windows in, maps out."""

    def __init__(self, module: nn.Module, card: ModelCard) -> None:
        self.module, self.card = module, card

    @torch.no_grad()
    def __call__(self, window: NDArray[np.uint8]) -> NDArray[np.float32]:
        device = next(self.module.parameters()).device
        image = (
            torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1)[None])).to(device).float() / 255
        )
        maps: NDArray[np.float32] = self.module(image)[0].float().cpu().numpy()
        return maps


class Validation:
    """Scores and pictures of one pass over the validation images."""

    def __init__(self, network: TorchNetwork) -> None:
        self.network = network
        self.tally = MatchTally(DSB2018_THRESHOLDS)
        self.pictures: list[NDArray[np.uint8]] = []

    def add(self, image: NDArray[np.uint8], truth: NDArray[np.int32]) -> None:
        """Segment one image and compare it with its labels."""
        nuclei = segment_normalised(image, self.network, Options()).nuclei
        self.tally.add(truth, nuclei.labels)
        if len(self.pictures) < _PICTURED:
            self.pictures.append(_beside(image, nuclei, Instances(np.maximum(relabel(truth), 0))))

    def scores(self) -> dict[str, float]:
        """Mean over images of the Data Science Bowl's mAP and of the AP at 0.5."""
        return {
            "mAP": self.tally.mean_average_precision(),
            "AP50": float(self.tally.per_image().average_precision[:, 0].mean()),
        }

    def write_picture(self, path: Path) -> None:
        """The first few images, predicted outlines above and true ones below, in one PNG."""
        height = max(picture.shape[0] for picture in self.pictures)
        padded = [
            np.pad(p, ((0, height - p.shape[0]), (0, 4), (0, 0)), constant_values=128) for p in self.pictures
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.ascontiguousarray(np.hstack(padded))))


def _beside(image: NDArray[np.uint8], predicted: Instances, truth: Instances) -> NDArray[np.uint8]:
    side = 320
    pair = [draw_overlay(image, nuclei)[:side, :side] for nuclei in (predicted, truth)]
    return np.vstack([pair[0], np.full((4, pair[0].shape[1], 3), 128, np.uint8), pair[1]])
