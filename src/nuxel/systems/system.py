"""What training, export and prediction ask of a system."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from nuxel.errors import UsageError


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise UsageError unless the weights of losses are finite, not negative, and not all zero."""
    for name, value in weights.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} is a weight and must be finite and not negative, got {value}")
    if not any(weights.values()):
        raise UsageError(f"nothing can be learned: all weights of losses are 0 ({', '.join(weights)})")


class System(Protocol):
    """A frozen dataclass whose fields are the tables of a recipe; one file a system in this folder."""

    @property
    def name(self) -> str:
        """What recipes call it."""

    @property
    def decoder(self) -> str:
        """Name of its decoder in :data:`nuxel.decode.decoders.DECODERS`."""

    @property
    def diameters(self) -> tuple[float, float]:
        """Nuclei between these diameters, in pixels, are found best."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the network that a stage can freeze: ``decoder``, which has a learning rate of its own, and others,
        which have the encoder's."""

    @property
    def decoder_rule(self) -> Any:
        """The decoder's parameters."""

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the outputs that predicting needs, in order."""

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the maps that are probabilities of pixels; they come first, among the targets too."""

    @property
    def stride(self) -> int:
        """The sides of the network's input are multiples of this."""

    @property
    def most(self) -> int | None:
        """The greatest number of nuclei that it reports of one window; None if it has maps."""

    @property
    def needs_background(self) -> bool:
        """Whether it learns what is no nucleus only from pixels that are annotated as such."""

    def build(self) -> nn.Module: ...

    def draw_targets(self, labels: NDArray[np.int32]) -> NDArray[np.floating]:
        """``(H, W)`` labels -> what the loss compares with, ``(K, H, W)``, as narrow as it can be exact enough."""

    def compute_loss(
        self, network: nn.Module, images: Tensor, targets: Tensor, annotated: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses of a batch by name, and their sum under ``loss``.

        ``images`` are ``(N, 3, H, W)`` in ``[0, 1]``, ``targets`` ``(N, K, H, W)`` as drawn, ``annotated``
        ``(N, 1, H, W)`` in {0, 1}.
        """

    def answer(self, network: nn.Module, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the exported graph returns: maps ``(N, K, H, W)``, or the outputs that :attr:`maps` names."""

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Parameters by part."""


@runtime_checkable
class Prepares(Protocol):
    """A system that looks at the training set before it starts."""

    def prepare(self, network: nn.Module, labels: Iterable[NDArray[np.int32]]) -> None:
        """Set what the network takes from the set's label images, ``(H, W)`` each, at the images' own scale."""
