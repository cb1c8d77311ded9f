"""The model card: everything that predicting needs, kept inside the model file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nuxel.errors import NuxelError
from nuxel.predict.stages import Stage

METADATA_KEY = "nuxel"
FORMAT = 2
ATTENTION = "attention_"
"""What the outputs that hold the attention of a pyramid level are called, before the level's number."""


@dataclass(frozen=True)
class ModelCard:
    """What a model file says of itself.

    Parameters
    ----------
    system, decoder, decoder_rule
        Names of the system and of its decoder, and the decoder's parameters.
    maps
        Names of the graph's output maps, in order; of a network that detects, names of its outputs.
    stride, reach
        The input's sides are multiples of ``stride``; no output pixel depends on input further than ``reach`` away.
    context
        ``"local"``: the answer cannot depend on tiling. ``"global"``: it depends on all of the window.
    window
        Side in pixels of the one square window that a global network runs at; None for local networks.
    most
        The greatest number of nuclei that a network that detects reports of one window; None for other networks.
    diameters
        Nuclei between these diameters, in pixels, are found best: others are scaled into the range.
    input
        How the image is prepared, for people; there is one way so far (:func:`nuxel.image.normalise.normalise`).
    scores
        Measured figures, each under the name of its rule and data.
    stages
        The parts that the graph may be run in, in order; none if only as a whole.
    """

    title: str
    system: str
    decoder: str
    decoder_rule: Mapping[str, float | str]
    maps: tuple[str, ...]
    stride: int
    reach: int
    context: str
    diameters: tuple[float, float]
    input: str
    training_data: str
    licence: str
    nuxel_version: str
    window: int | None = None
    most: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


_KINDS: Mapping[str, Any] = {
    "title": str,
    "decoder": str,
    "decoder_rule": dict,
    "stride": int,
    "reach": int,
    "context": str,
    "window": int | None,
    "most": int | None,
    "scores": dict,
}
"""What predicting takes for granted."""


def read_card(text: str | None, where: str) -> ModelCard:
    """Parse a card; ``where`` names the file in errors.

    Raises
    ------
    NuxelError
        If there is no card, it is damaged, or a newer nuxel wrote it.
    """
    if text is None:
        raise NuxelError(f"{where}: an ONNX model, but not one of nuxel's (it holds no nuxel model card)")
    try:
        values: dict[str, Any] = json.loads(text)
        version = values["format"]
    except (ValueError, KeyError, TypeError):
        raise NuxelError(f"{where}: the model card is damaged; export the model again") from None
    if not isinstance(version, int) or version > FORMAT:
        writer = values.get("nuxel_version", "unknown")
        raise NuxelError(
            f"{where}: written by a newer nuxel ({writer}, model format {version}); upgrade nuxel to use it"
        )
    try:
        values["maps"] = tuple(values["maps"])
        low, high = values["diameters"]
        values["diameters"] = (float(low), float(high))
        values["stages"] = tuple(
            Stage(tuple(one["reads"]), tuple(one["gives"]), one["reach"]) for one in values.get("stages", ())
        )
        card = ModelCard(**values)
        for name, kind in _KINDS.items():
            if not isinstance(getattr(card, name), kind):
                raise TypeError
        return card
    except (KeyError, TypeError, ValueError):
        raise NuxelError(f"{where}: the model card is damaged; export the model again") from None
