"""Annotations completed while a network trains: from some epochs on it learns from what it finds itself, too.

Source: partially labeled exemplars paper, section III.D: train on some of the nuclei, propagate, train on. Here within
one run, and without a person in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from numpy.typing import NDArray

from nuxel.data.thin import UNKNOWN
from nuxel.instances import Instances
from nuxel.predict.pipeline import Options, decoder_rule, segment_normalised
from nuxel.predict.propagate import propagate
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import Data
from nuxel.training.validate import TorchNetwork, Whole


def completed(annotations: NDArray[np.int32], found: Instances, least: float) -> NDArray[np.int32]:
    """Take for nuclei what was surely found where nobody annotated, and for background where nothing was.

    Parameters
    ----------
    annotations
        ``(H, W)`` int32: a nucleus where positive, background where 0, not annotated where negative.
    found
        What a network finds in the image.
    least
        What has a lower score may be a nucleus or not.

    Returns
    -------
    ``(H, W)`` int32. Every annotated pixel as it was; elsewhere further nuclei, -1 where there may be one, and 0.

    Raises
    ------
    NuxelError
        If the shapes differ.

    Examples
    --------
    >>> found = Instances(np.array([[0, 1, 1, 2, 2, 0]], np.int32), np.array([0.9, 0.4], np.float32))
    >>> completed(np.array([[5, -1, -1, -1, -1, -1]], np.int32), found, least=0.5).tolist()
    [[5, 6, 6, -1, -1, 0]]
    """
    propagated = propagate(annotations, found)
    doubted = [number for number, score in propagated.scores.items() if score < least]
    labels = np.where(propagated.labels == UNKNOWN, np.int32(0), propagated.labels)
    labels[np.isin(labels, doubted)] = UNKNOWN
    return labels


class CompletedAnnotations(Callback):
    """Completes the training images' annotations after some epochs, each time from those that people made.

    What finds the nuclei is what would be validated then: the averaged weights, by the pipeline of prediction. The
    labels are part of every checkpoint, so that a resumed run goes on with the same ones.

    Parameters
    ----------
    images
        What training views are drawn from. The label images are changed in place: patches are cut from them.
    data
        Says when, and from which scores on.
    average
        Has the averaged weights.
    """

    def __init__(self, images: Sequence[Whole], data: Data, average: WeightAveraging) -> None:
        self.images, self.data, self.average = images, data, average
        self.annotated = [labels.copy() for _, labels in images]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 not in self.data.complete_after:
            return
        assert isinstance(pl_module, TrainingModule)
        self.average.on_validation_epoch_start(trainer, pl_module)  # puts the averaged weights in place
        training = pl_module.training
        pl_module.eval()
        try:
            with trainer.precision_plugin.val_step_context():
                self._complete(pl_module)
        finally:
            pl_module.train(training)
            self.average.on_validation_epoch_end(trainer, pl_module)

    def _complete(self, module: TrainingModule) -> None:
        rule = replace(decoder_rule(module.card, Options()), min_score=self.data.doubted_score)
        network = TorchNetwork(module, replace(module.card, decoder_rule=asdict(rule)))
        for (image, labels), annotated in zip(self.images, self.annotated, strict=True):
            found = segment_normalised(image, network, Options()).nuclei
            labels[...] = completed(annotated, found, self.data.complete_score)

    def state_dict(self) -> dict[str, Any]:
        return {"labels": [torch.from_numpy(labels.copy()) for _, labels in self.images]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for (_, labels), saved in zip(self.images, state_dict["labels"], strict=True):
            labels[...] = saved.numpy()
