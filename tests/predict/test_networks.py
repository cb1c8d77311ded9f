"""Networks made of networks, with networks whose answer can be computed by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from nuxel.errors import UsageError
from nuxel.predict.card import ModelCard
from nuxel.predict.networks import Ensemble, Network, Remembering, Turned
from nuxel.tiling.grid import Box, crop

RNG = np.random.default_rng(0)


class Fixed:
    """Answers with the window's channels, times a factor."""

    provider, threads = "CPUExecutionProvider", 2

    def __init__(self, card: ModelCard, factor: float = 1.0) -> None:
        self.card, self.factor, self.looks, self.released = card, factor, 0, 0
        self.name, self.sha256 = f"{factor}.onnx", str(factor)

    def release(self) -> None:
        self.released += 1

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        self.looks += 1
        maps = np.moveaxis(window, -1, 0).astype(np.float32) * np.float32(self.factor)
        return crop(maps[[0] * (len(self.card.maps) - 2) + [1, 2]], inner)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


class TestRemembering:
    def test_the_same_window_is_asked_for_once(self, toy_card: ModelCard) -> None:
        network = Fixed(toy_card)
        memory = Remembering(network)
        here, there = picture(16, 32), picture(16, 32)
        answers = [memory(window) for window in (here, there, here.copy(), there)]
        assert network.looks == 2
        assert np.array_equal(answers[0], answers[2])
        assert np.array_equal(answers[1], answers[3])
        assert not np.array_equal(answers[0], answers[1])

    def test_large_windows_and_more_than_a_few_are_not_kept(self, toy_card: ModelCard) -> None:
        network = Fixed(toy_card)
        memory = Remembering(network)
        large = picture(512, 528)
        memory(large)
        memory(large)
        assert network.looks == 2
        windows = [picture(16, 16) for _ in range(9)]
        for window in windows * 2:
            memory(window)
        assert network.looks == 2 + 9 + 1


@pytest.mark.parametrize("kind", [Remembering, Turned, lambda network: Ensemble([network, network])])
@pytest.mark.parametrize("shape", [(16, 32), (528, 512)])
def test_only_the_inner_part_is_given(
    kind: Callable[[Network], Network], shape: tuple[int, int], toy_card: ModelCard
) -> None:
    network = kind(Fixed(toy_card))
    window = picture(*shape)
    inner = network(window, (4, 8, 12, 32))
    assert inner.shape == (4, 8, 24)
    assert np.array_equal(inner, network(window)[:, 4:12, 8:32])
    assert np.array_equal(inner, network(window, (4, 8, 12, 32)))


class TestTurned:
    def test_an_answer_that_turns_with_the_view_stays(self, toy_card: ModelCard) -> None:
        network = Fixed(toy_card)
        window = picture(16, 32)
        assert np.allclose(Turned(network)(window), network(window))
        assert network.looks == 8 + 1

    def test_the_mean_of_all_eight_views(self, toy_card: ModelCard) -> None:
        class Corner(Fixed):
            def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
                maps = np.zeros((4, *window.shape[:2]), np.float32)
                maps[:, 0, 0] = 1
                return crop(maps, inner)

        maps = Turned(Corner(toy_card))(picture(4, 6))
        expected = np.zeros((4, 6))
        expected[[0, 0, -1, -1], [0, -1, 0, -1]] = 1 / 4
        assert np.allclose(maps, expected)


class TestEnsemble:
    def test_is_the_mean(self, toy_card: ModelCard) -> None:
        window = picture(16, 16)
        one, two, four = (Fixed(toy_card, factor) for factor in (1, 2, 6))
        together = Ensemble([one, two, four])
        assert np.allclose(together(window), 3 * one(window))
        assert together.name == "1.onnx + 2.onnx + 6.onnx"
        assert len({network.sha256 for network in (one, two, four, together)}) == 4
        assert Ensemble([two, one]).sha256 != Ensemble([one, two]).sha256

    def test_all_are_released(self, toy_card: ModelCard) -> None:
        networks = [Fixed(toy_card, factor) for factor in (1, 2)]
        Ensemble(networks).release()
        assert [network.released for network in networks] == [1, 1]

    def test_the_card_suits_all(self, toy_card: ModelCard) -> None:
        other = dataclasses.replace(
            toy_card, stride=24, reach=50, maps=("log_diameter", *toy_card.maps[:3], "more")
        )
        card = Ensemble([Fixed(toy_card), Fixed(other)]).card
        assert (card.stride, card.reach, card.maps) == (48, 50, toy_card.maps)

    def test_maps_are_matched_by_name(self, toy_card: ModelCard) -> None:
        swapped = dataclasses.replace(toy_card, maps=("nucleus", "shrunk", "log_diameter", "touching"))
        window = picture(16, 16)
        plain = Fixed(toy_card)(window)
        together = Ensemble([Fixed(toy_card), Fixed(swapped)])(window)
        assert np.allclose(together, (plain + plain[[0, 1, 3, 2]]) / 2)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"decoder": "masks"}, "differ in their decoder"),
            ({"window": 256}, "differ in their window"),
            ({"maps": ("nucleus",)}, "lacks the map shrunk"),
        ],
    )
    def test_what_does_not_go_together(
        self, toy_card: ModelCard, change: dict[str, object], message: str
    ) -> None:
        other = dataclasses.replace(toy_card, **change)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=message):
            Ensemble([Fixed(toy_card), Fixed(other)])
