"""Networks made of networks: what is looked at twice is remembered, turned views and several models are averaged."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nuxel.decode.decoders import DETECTIONS
from nuxel.decode.detections import Detections
from nuxel.errors import UsageError
from nuxel.predict.card import ModelCard
from nuxel.tiling.grid import Box, crop

Maps = NDArray[np.float32]


class Network(Protocol):
    """A network and its card: an opened model file, or one in training."""

    @property
    def card(self) -> ModelCard: ...

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> Maps:
        """The maps of a window, or of its inner part; all of the window may decide them."""

    def release(self) -> None:
        """Give back the memory that is kept for the next window of an image."""


class Detector(Protocol):
    """A network that reports boxes with masks, and its card."""

    @property
    def card(self) -> ModelCard: ...

    def detect(self, window: NDArray[np.uint8]) -> Detections: ...


class NamedNetwork(Network, Protocol):
    """A network of one or several model files, as a run records it."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def threads(self) -> int: ...


_REMEMBERED_PIXELS = 512 * 512
_REMEMBERED = 8


class Remembering:
    """Keeps the answers to small windows, and gives them without asking the network again.

    A small image is often looked at twice in the same way: for the size of its nuclei and for the nuclei themselves.
    The first few windows of at most 512 x 512 pixels are kept; nobody may change their maps.
    """

    def __init__(self, network: Network) -> None:
        self.card = network.card
        self._network = network
        self._answers: list[tuple[NDArray[np.uint8], Maps]] = []

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> Maps:
        if window.shape[0] * window.shape[1] > _REMEMBERED_PIXELS:
            return self._network(window, inner)
        for seen, maps in self._answers:
            if np.array_equal(seen, window):
                return crop(maps, inner)
        maps = self._network(window)
        if len(self._answers) < _REMEMBERED:
            self._answers.append((window, maps))
        return crop(maps, inner)

    def release(self) -> None:
        """See :class:`Network`."""
        self._network.release()


class Turned:
    """The mean of a network's answers to the eight turned and mirrored views of a window (test-time augmentation)."""

    def __init__(self, network: Network) -> None:
        self.card = network.card
        self._network = network

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> Maps:
        answers = (
            self._look(window, swapped=swapped, rows=rows, columns=columns)
            for swapped in (False, True)
            for rows in (1, -1)
            for columns in (1, -1)
        )
        total = next(answers)
        for answer in answers:
            total += answer
        total /= 8
        return crop(total, inner)

    def release(self) -> None:
        """See :class:`Network`."""
        self._network.release()

    def _look(self, window: NDArray[np.uint8], *, swapped: bool, rows: int, columns: int) -> Maps:
        view = window[::rows, ::columns]
        if swapped:
            view = view.swapaxes(0, 1)
        maps = self._network(np.ascontiguousarray(view))
        if swapped:
            maps = maps.swapaxes(1, 2)
        return np.array(maps[:, ::rows, ::columns])


class Ensemble:
    """Several networks as one: the mean of their maps.

    Its card is the first one's, with the maps that all have, the greatest reach and the least common stride; the
    decoder and its parameters are the first one's.

    Raises
    ------
    UsageError
        If the networks do not go together: other decoders, a map that the first one's size or decoder needs missing,
        or windows of other sizes; or if they report boxes, which have no mean.
    """

    def __init__(self, networks: Sequence[NamedNetwork]) -> None:
        first = networks[0]
        self._networks = list(networks)
        cards = [network.card for network in networks]
        if first.card.decoder == DETECTIONS:
            raise UsageError(
                f"models are averaged by their maps, and the model {first.card.title} reports boxes; give it alone"
            )
        for card in cards[1:]:
            for what in ("decoder", "window"):
                here, there = getattr(first.card, what), getattr(card, what)
                if here != there:
                    raise UsageError(
                        f"the models {first.card.title} and {card.title} cannot be averaged: "
                        f"they differ in their {what} ({here} and {there})"
                    )
            if missing := [name for name in first.card.maps if name not in card.maps]:
                raise UsageError(
                    f"the models {first.card.title} and {card.title} cannot be averaged: "
                    f"the second lacks the map {missing[0]}"
                )
        self.card = dataclasses.replace(
            first.card,
            title=" + ".join(card.title for card in cards),
            reach=max(card.reach for card in cards),
            stride=math.lcm(*(card.stride for card in cards)),
            stages=first.card.stages if all(card.stages for card in cards) else (),
        )
        self.name = " + ".join(network.name for network in networks)
        self.sha256 = hashlib.sha256("".join(network.sha256 for network in networks).encode()).hexdigest()
        self.provider, self.threads = first.provider, first.threads

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> Maps:
        total = np.array(self._networks[0](window, inner))
        for network in self._networks[1:]:
            total += network(window, inner)[[network.card.maps.index(name) for name in self.card.maps]]
        total /= len(self._networks)
        return total

    def release(self) -> None:
        """See :class:`Network`."""
        for network in self._networks:
            network.release()
