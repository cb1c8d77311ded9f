"""Which prediction belongs to which truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.data.image_names import match_names
from nuxel.data.label_sets import LabelFile, LabelSource, Nothing
from nuxel.errors import NuxelError, UsageError
from nuxel.labels.bands import aligned, plane_shape, read_bands
from nuxel.metrics.overlap import OverlapTable, count_overlaps

LARGE = 1 << 26
"""Pixels from which a pair is read in bands, and is no longer shown as a picture."""

_NAMED = 5


@dataclass(frozen=True)
class Pair:
    """One image: its name, its truth and its prediction."""

    image: str
    truth: LabelSource
    predicted: LabelSource

    def read(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The truth and the prediction, ``(H, W)`` int32 each.

        Raises
        ------
        NuxelError
            If either cannot be read, their shapes differ, or a predicted label is negative.
        """
        if self.truth.sized:
            truth = self.truth.read(None)
            predicted = self.predicted.read(_plane(truth))
        else:
            known = self.predicted.read(None) if self.predicted.sized else None
            truth = self.truth.read(None if known is None else _plane(known))
            predicted = np.zeros_like(truth) if known is None else known
        self._refuse_other_shape(truth.shape, predicted.shape)
        if predicted.min(initial=0) < 0:
            raise NuxelError(
                f"{self.predicted.where}: holds the negative label {predicted.min()}; only the truth can have pixels "
                "that are not annotated (nuxel propagate --complete leaves none)."
            )
        return truth, predicted

    @property
    def is_slide(self) -> bool:
        """Whether both are TIFF files that are too large to be held in memory, and can be read in bands."""
        if not isinstance(self.truth, LabelFile) or not isinstance(self.predicted, LabelFile):
            return False
        shapes = [plane_shape(source.path) for source in (self.truth, self.predicted)]
        return all(shape is not None and shape[0] * shape[1] >= LARGE for shape in shapes)

    def count_in_bands(self) -> OverlapTable:
        """The overlaps of truth and prediction of a slide, counted band by band.

        Raises
        ------
        NuxelError
            If either cannot be read, or their shapes differ.
        """
        truth, predicted = Path(self.truth.where), Path(self.predicted.where)
        self._refuse_other_shape(plane_shape(truth) or (), plane_shape(predicted) or ())
        try:
            return count_overlaps(aligned(read_bands(truth), read_bands(predicted)))
        except NuxelError as error:
            raise NuxelError(f"{predicted} against {truth}: {error}") from error

    def _refuse_other_shape(self, truth: tuple[int, ...], predicted: tuple[int, ...]) -> None:
        if predicted != truth:
            raise NuxelError(
                f"{self.predicted.where}: it is {predicted[0]} x {predicted[1]} pixels, but {self.truth.where} is "
                f"{truth[0]} x {truth[1]}; both must be of the same image, unscaled."
            )


def _plane(labels: NDArray[np.int32]) -> tuple[int, int]:
    return labels.shape[0], labels.shape[1]


def pair_labels(
    predicted: Mapping[str, LabelSource],
    truth: Mapping[str, LabelSource],
    *,
    lone: bool = True,
    allow_missing: bool = False,
) -> list[Pair]:
    """Pair predictions and truths by the names of their images (:func:`nuxel.data.image_names.match_names`), sorted by
    name, which is that of the truth.

    Parameters
    ----------
    predicted, truth
        Sources by name, as :func:`nuxel.data.label_sets.find_labels` gives them.
    lone
        A single one on each side are a pair whatever their names.
    allow_missing
        Count a truth without a prediction as an image in which nothing was found.

    Raises
    ------
    UsageError
        If nothing matches, anything has no partner (each named), or a prediction and its truth are one file.
    """
    partner = match_names(predicted, truth, lone=lone)
    missing = sorted(set(truth) - set(partner.values()))
    extra = sorted(set(predicted) - set(partner))
    if not partner:
        raise UsageError(
            f"no prediction has the name of a truth: {_listed(sorted(predicted))} against {_listed(sorted(truth))}"
        )
    problems = []
    if missing and not allow_missing:
        problems.append(f"no prediction for {_listed(missing)} (--allow-missing counts them as empty)")
    if extra:
        problems.append(f"no truth for {_listed(extra)}")
    if problems:
        raise UsageError("; ".join(problems))
    same = [t for p, t in partner.items() if realpath(predicted[p].where) == realpath(truth[t].where)]
    if same:
        raise UsageError(f"prediction and truth are the same file: {truth[same[0]].where}")
    pairs = [Pair(t, truth[t], predicted[p]) for p, t in partner.items()]
    pairs += [Pair(name, truth[name], Nothing()) for name in missing]
    return sorted(pairs, key=lambda pair: pair.image)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
