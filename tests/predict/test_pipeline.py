"""From a normalised image to nuclei: options, tiles, scales, and the way back to the image's own size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.errors import NuxelError, UsageError
from nuxel.image.normalise import normalise
from nuxel.image.resample import ScaledImage
from nuxel.predict.card import ModelCard
from nuxel.predict.pipeline import Options, decode_maps, decoder_rule, run_network, segment_normalised
from nuxel.tiling.grid import Box, crop

Draw = Callable[..., NDArray[np.uint8]]


class Brightness:
    """A network without weights: bright is nucleus and seed; the size map says what it is told."""

    def __init__(self, card: ModelCard, diameter: float = 16.0) -> None:
        self.card = card
        self.log_diameter = np.log2(diameter / 16)
        self.windows: list[tuple[int, int]] = []

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        assert window.dtype == np.uint8
        assert window.shape[0] % self.card.stride == window.shape[1] % self.card.stride == 0
        self.windows.append((window.shape[0], window.shape[1]))
        bright = window.mean(axis=2, dtype=np.float32) / 255
        return crop(np.stack([bright, bright, 0 * bright, np.full_like(bright, self.log_diameter)]), inner)


class Smear(Brightness):
    """Each pixel is the mean of the ``2 r + 1`` pixels around it in its row, so that windows need a halo of r."""

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        maps = super().__call__(window)
        reach = self.card.reach
        padded = np.pad(maps[0], ((0, 0), (reach, reach)))
        mean = sum(padded[:, k : k + maps.shape[2]] for k in range(2 * reach + 1)) / np.float32(2 * reach + 1)
        return crop(np.stack([mean, mean, maps[2], maps[3]]), inner)


@pytest.fixture
def bright(toy_card: ModelCard) -> Brightness:
    return Brightness(toy_card)


def test_maps_that_are_no_numbers_are_no_nuclei(bright: Brightness) -> None:
    """Nor a success with none, as a cast to 8 bits would have it."""

    class Damaged(Brightness):
        def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
            maps = super().__call__(window, inner)
            maps[0, -1, -1] = np.nan
            return maps

    with pytest.raises(NuxelError, match=r"the maps of the model .* are not numbers"):
        run_network(ScaledImage(np.zeros((64, 64, 3), np.uint8)), Damaged(bright.card), Options())


class Slanted(Brightness):
    """Believes more in what is on the right."""

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        maps = super().__call__(window)
        maps[0] *= np.linspace(0, 1, window.shape[1], dtype=np.float32)
        return crop(maps, inner)


def test_with_tta_the_network_sees_eight_views(toy_card: ModelCard) -> None:
    image = np.full((32, 48, 3), 200, np.uint8)
    networks = Slanted(toy_card), Slanted(toy_card)
    plain, turned = (
        run_network(ScaledImage(image), network, Options(tta=tta))
        for network, tta in zip(networks, (False, True), strict=True)
    )
    assert (len(networks[0].windows), len(networks[1].windows)) == (1, 8)
    assert np.ptp(plain[0]) > 150
    assert np.ptp(turned[0]) < 60


class TestPixelSize:
    def test_it_gives_the_size_where_nothing_is_seen(self, bright: Brightness) -> None:
        black = np.zeros((64, 64, 3), np.uint8)
        assert segment_normalised(black, bright, Options(), 0.1).size.diameter == pytest.approx(80)
        assert segment_normalised(black, bright, Options()).size.diameter is None

    def test_it_is_doubted_where_nuclei_say_otherwise(
        self, bright: Brightness, draw_discs: Callable[..., NDArray[np.uint8]]
    ) -> None:
        found = segment_normalised(normalise(draw_discs()), bright, Options(), 0.01)
        assert found.size.diameter == pytest.approx(16)
        assert found.warning.startswith("at 0.01 um a pixel the nuclei would be 0.16 um across")


def test_maps_of_a_shrunken_view_are_decoded_at_the_size_of_the_image(toy_card: ModelCard) -> None:
    small = np.zeros((24, 24), np.uint8)
    small[4:12, 4:12] = 255
    small[20:22, 20:22] = 255  # 64 pixels of the image, but the least area holds at the network's scale
    card = dataclasses.replace(toy_card, decoder_rule={"min_area": 20})
    nuclei = decode_maps(np.stack([small, small, 0 * small]), (96, 96), card, Options())
    assert len(nuclei) == 1
    assert nuclei.labels[16, 16] == 0  # interpolated, not repeated: corners are round
    assert nuclei.labels[20:44, 20:44].all()


class TestOptions:
    @pytest.mark.parametrize(
        "given",
        [
            {"threshold": 0.0},
            {"threshold": 1.0},
            {"threshold": -0.1},
            {"threshold": float("nan")},
            {"min_area": -1},
            {"scale": 0.0},
            {"scale": -2.0},
            {"scale": float("nan")},
            {"scale": float("inf")},
            {"scale": 16.1},
            {"diameter": 0.0},
            {"diameter": float("inf")},
            {"tile_size": 0},
            {"scale": 1.0, "diameter": 10.0},
        ],
    )
    def test_out_of_range(self, given: dict[str, float]) -> None:
        with pytest.raises(UsageError) as caught:
            Options(**given)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    def test_the_edges_of_the_ranges_are_inside(self) -> None:
        Options(threshold=1e-6, min_area=0, scale=1e-3, tile_size=1)
        Options(scale=16)
        Options(threshold=1 - 1e-6, diameter=1e-3)


class TestMaps:
    @pytest.mark.parametrize("tile_size", [16, 32, 48, 80, 1000])
    @pytest.mark.parametrize("shape", [(1, 1), (16, 16), (50, 70), (33, 129)])
    def test_tiles_do_not_change_them(
        self, toy_card: ModelCard, tile_size: int, shape: tuple[int, int]
    ) -> None:
        network = Smear(dataclasses.replace(toy_card, reach=20))
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        whole = run_network(ScaledImage(image), network, Options(tile_size=4096))
        assert whole.shape == (3, *shape)
        assert whole.dtype == np.uint8
        assert np.array_equal(run_network(ScaledImage(image), network, Options(tile_size=tile_size)), whole)

    def test_a_halo_that_is_too_narrow_would_show(self, toy_card: ModelCard) -> None:
        image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
        network = Smear(dataclasses.replace(toy_card, reach=40))
        whole = run_network(ScaledImage(image), network, Options())
        halves = [
            run_network(ScaledImage(half), network, Options()) for half in (image[:, :64], image[:, 64:])
        ]
        assert not np.array_equal(np.concatenate(halves, axis=2), whole)

    def test_probabilities_are_rounded_to_bytes(self, bright: Brightness) -> None:
        image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        assert np.array_equal(run_network(ScaledImage(image), bright, Options())[0], image[..., 0])

    def test_no_window_is_larger_than_tile_and_halo(self, bright: Brightness) -> None:
        run_network(ScaledImage(np.zeros((500, 300, 3), np.uint8)), bright, Options(tile_size=64))
        assert max(max(window) for window in bright.windows) <= 64 + 2 * 16


class TestDecoding:
    def test_at_the_images_own_size(self, toy_card: ModelCard, draw_discs: Draw) -> None:
        discs = draw_discs()
        maps = np.stack([discs, discs, 0 * discs])
        nuclei = decode_maps(maps, discs.shape, toy_card, Options())
        assert len(nuclei) == 4
        assert np.array_equal(nuclei.labels > 0, discs > 0)

    @pytest.mark.parametrize("factor", [0.5, 2, 3])
    def test_maps_of_another_size_come_back(
        self, toy_card: ModelCard, draw_discs: Draw, factor: float
    ) -> None:
        here, there = draw_discs(4, 96, 12), draw_discs(4, round(96 * factor), round(12 * factor))
        nuclei = decode_maps(np.stack([there, there, 0 * there]), (96, 96), toy_card, Options())
        assert nuclei.labels.shape == (96, 96)
        assert len(nuclei) == 4
        both, either = ((nuclei.labels > 0) & (here > 0)).sum(), ((nuclei.labels > 0) | (here > 0)).sum()
        assert both / either > 0.85

    @given(st.integers(0, 2**32 - 1), st.floats(1.3, 4))
    def test_nuclei_of_an_enlarged_view_stay_in_one_piece_and_in_order(
        self, toy_card: ModelCard, seed: int, factor: float
    ) -> None:
        rng = np.random.default_rng(seed)
        side = round(30 * factor)
        maps = ndimage.gaussian_filter(rng.random((3, side, side)), (0, 1.2, 1.2)) ** 3
        maps = (maps / maps.max() * 255).astype(np.uint8)
        maps[2] = 0
        card = dataclasses.replace(toy_card, decoder_rule={"threshold": 0.3, "min_area": 1})
        found = decode_maps(maps, (30, 30), card, Options())
        numbers, first = np.unique(found.labels, return_index=True)
        assert numbers[numbers > 0].tolist() == list(range(1, len(found) + 1))
        assert (np.diff(first[numbers > 0]) > 0).all()
        for number in range(1, len(found) + 1):
            assert ndimage.label(found.labels == number)[1] == 1

    def test_the_threshold_is_the_users(self, toy_card: ModelCard) -> None:
        nucleus = np.zeros((40, 40), np.uint8)
        nucleus[5:30, 5:30] = 100
        nucleus[10:20, 10:20] = 220
        maps = np.stack([nucleus, nucleus, 0 * nucleus])
        areas = [
            int((decode_maps(maps, (40, 40), toy_card, Options(threshold=t)).labels > 0).sum())
            for t in (None, 0.3, 0.7, 0.9)
        ]
        assert areas == [100, 625, 100, 0]

    def test_the_cards_rule_counts(self, toy_card: ModelCard, draw_discs: Draw) -> None:
        discs = draw_discs()
        strict = dataclasses.replace(toy_card, decoder_rule={"threshold": 0.9})
        assert len(decode_maps(np.stack([discs, discs, 0 * discs]), (96, 96), strict, Options())) == 0

    def test_the_least_area_is_in_pixels_of_the_image(self, toy_card: ModelCard, draw_discs: Draw) -> None:
        large = draw_discs(4, 192, 14)
        maps = np.stack([large, large, 0 * large])
        nuclei = decode_maps(maps, (96, 96), toy_card, Options())
        areas = np.bincount(nuclei.labels.ravel())[1:]
        assert len(decode_maps(maps, (96, 96), toy_card, Options(min_area=int(areas.min())))) == 4
        assert len(decode_maps(maps, (96, 96), toy_card, Options(min_area=int(areas.max()) + 1))) == 0

    def test_it_takes_the_place_of_the_cards(self, toy_card: ModelCard, draw_discs: Draw) -> None:
        """Also where the card's is larger."""
        discs = draw_discs(4, 96, 8)
        maps = np.stack([discs, discs, 0 * discs])
        card = dataclasses.replace(toy_card, decoder_rule={"min_area": 5000})
        found = [
            len(decode_maps(maps, (96, 96), card, Options(min_area=least))) for least in (None, 0, 9, 5000)
        ]
        assert found == [0, 4, 4, 0]

    def test_what_is_dropped_leaves_no_gap(self, toy_card: ModelCard, draw_discs: Draw) -> None:
        discs = draw_discs(9, 120, 8)
        discs[:40, 45:75] = 0  # the second of the upper row goes, and a smaller one comes in its place
        discs[18:22, 58:62] = 250
        maps = np.stack([discs, discs, 0 * discs])
        everything = decode_maps(maps, (120, 120), toy_card, Options())
        larger = decode_maps(maps, (120, 120), toy_card, Options(min_area=17))
        assert (len(everything), len(larger)) == (9, 8)
        assert np.unique(larger.labels).tolist() == list(range(9))
        assert larger.scores.max() < everything.scores.max() == pytest.approx(250 / 255)

    def test_more_nuclei_than_sixteen_bits_hold(self, toy_card: ModelCard) -> None:
        nucleus = np.zeros((1100, 1100), np.uint8)
        nucleus[1:-1:4, 1:-1:4] = nucleus[2:-1:4, 1:-1:4] = nucleus[1:-1:4, 2:-1:4] = 255
        card = dataclasses.replace(toy_card, decoder_rule={"min_area": 1, "min_marker_area": 1})
        nuclei = decode_maps(np.stack([nucleus, nucleus, 0 * nucleus]), (1100, 1100), card, Options())
        assert len(nuclei) == 275**2 > 65535
        assert nuclei.labels.max() == 275**2
        assert (np.bincount(nuclei.labels.ravel())[1:] == 3).all()


class TestCard:
    @pytest.mark.parametrize(
        "changes", [{"decoder": "masks"}, {"decoder_rule": {"threshold": 0.5, "kernel": 3.0}}]
    )
    def test_a_decoder_that_is_not_known(self, toy_card: ModelCard, changes: dict[str, object]) -> None:
        with pytest.raises(NuxelError, match="upgrade nuxel"):
            decoder_rule(dataclasses.replace(toy_card, **changes), Options())  # type: ignore[arg-type]

    def test_a_map_that_the_decoder_needs_is_missing(self, toy_card: ModelCard) -> None:
        card = dataclasses.replace(toy_card, maps=("nucleus",))
        with pytest.raises(NuxelError, match="no map 'shrunk'"):
            decoder_rule(card, Options())
        assert (
            decoder_rule(dataclasses.replace(card, decoder_rule={"split": "none"}), Options()).split == "none"
        )

    def test_a_global_network_sees_windows_of_one_size_only(self, toy_card: ModelCard) -> None:
        network = Brightness(dataclasses.replace(toy_card, context="global", window=64))
        image = np.random.default_rng(0).integers(0, 256, (150, 70, 3), np.uint8)
        maps = run_network(ScaledImage(image), network, Options(tile_size=32))
        assert set(network.windows) == {(64, 64)}
        assert np.array_equal(maps[0], np.rint(image.mean(axis=2, dtype=np.float32)).astype(np.uint8))


class TestSize:
    def test_the_scale_is_the_users(self, bright: Brightness, draw_discs: Draw) -> None:
        image = normalise(draw_discs())
        result = segment_normalised(image, bright, Options(scale=2))
        assert (result.size.scale, result.size.diameter) == (2, None)
        assert bright.windows == [(192, 192)]
        assert len(result.nuclei) == 4

    def test_a_small_image_is_looked_at_once_for_size_and_nuclei(
        self, bright: Brightness, draw_discs: Draw
    ) -> None:
        result = segment_normalised(normalise(draw_discs()), bright, Options())
        assert result.size.scale == 1
        assert bright.windows == [(96, 96)]
        assert len(result.nuclei) == 4

    def test_a_network_that_sees_no_sizes_runs_at_the_images_own(
        self, toy_card: ModelCard, draw_discs: Draw
    ) -> None:
        network = Brightness(dataclasses.replace(toy_card, maps=("nucleus", "shrunk", "touching")))
        result = segment_normalised(normalise(draw_discs()), network, Options())
        assert (result.size.scale, result.size.diameter, len(result.nuclei)) == (1, None, 4)

    @pytest.mark.parametrize(("diameter", "scale"), [(8, 1), (100, 1), (200, 1), (400, 0.1), (4, 4)])
    def test_the_diameter_is_the_users(
        self, bright: Brightness, draw_discs: Draw, diameter: float, scale: float
    ) -> None:
        # comfortable are 8 to 200 px: inside nothing is scaled, outside the middle (40 px) is the goal, at most 4 fold
        result = segment_normalised(normalise(draw_discs()), bright, Options(diameter=diameter))
        assert result.size.scale == pytest.approx(scale)
        assert result.size.diameter == diameter

    def test_a_nucleus_larger_than_tile_and_halo_is_one(self, bright: Brightness, draw_discs: Draw) -> None:
        image = normalise(draw_discs(1, 256, 110))
        nuclei = segment_normalised(image, bright, Options(scale=1, tile_size=32)).nuclei
        assert len(nuclei) == 1
        assert np.array_equal(nuclei.labels > 0, image[..., 0] > 0)
