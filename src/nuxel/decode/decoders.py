"""The decoders by the names that model cards give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from nuxel.decode.clumps import ClumpRule, decode_clumps
from nuxel.decode.detections import DetectionRule, decode_detections
from nuxel.decode.opening import OpeningRule, decode_opening
from nuxel.instances import Instances


class Rule(Protocol):
    """A decoder's parameters, a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def maps(self) -> tuple[str, ...]:
        """The network's outputs that are needed, in the order in which the decoder expects them."""

    def with_threshold(self, threshold: float) -> Self:
        """The rule with the threshold that a user asks for."""

    def enlarged(self, area: float) -> Self:
        """The rule for an image in which everything has ``area`` times as many pixels."""


@dataclass(frozen=True)
class Decoder:
    """A kind of rule, and what makes nuclei by a rule of that kind.

    ``decode`` takes maps ``(K, H, W)`` uint8 and the rule; that of detections takes these, the shape and the rule.
    """

    rule: type[Any]
    decode: Callable[..., Instances]


DETECTIONS = "detections"
"""The decoder of networks that report boxes with masks, not maps."""

DECODERS: Mapping[str, Decoder] = {
    "clumps": Decoder(ClumpRule, decode_clumps),
    "opening": Decoder(OpeningRule, decode_opening),
    DETECTIONS: Decoder(DetectionRule, decode_detections),
}
