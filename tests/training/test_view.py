import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nuxel.errors import UsageError
from nuxel.training import warp
from nuxel.training.augment import Augmentation
from nuxel.training.view import random_view
from nuxel.training.warp import piecewise_affine_shift, random_warp, seen_part, tilted

STILL = Augmentation(
    diameter_octaves=0, wide_p=0, stretch=0, shear=0, elastic_p=0, nucleus_contrast_p=0, stain_p=0, shuffle_p=0,
    grey_p=0, tint_p=0, invert_p=0, light_p=0, shading_p=0, blur_p=0, resolution_p=0, noise_p=0,
)  # fmt: skip
ALWAYS = dataclasses.replace(
    Augmentation(), **{f.name: 1.0 for f in dataclasses.fields(Augmentation) if f.name.endswith("_p")}
)

# The generator's state after one view with the default augmentation, from the seeds 0, 1 and 2.
DRAWN = [
    163344769951363677477366882953721407442,
    329659365072021329713462473737005802674,
    330568655408703338134080588709967584516,
]


def encoded(labels: np.ndarray) -> np.ndarray:
    """An image that shows its labels: red is nucleus, green is not annotated."""
    shown = np.zeros((*labels.shape, 3), np.uint8)
    shown[labels > 0, 0] = 255
    shown[labels < 0, 1] = 255
    return shown


class TestWarp:
    @pytest.mark.parametrize("seed", range(12))
    def test_pixels_and_labels_move_together(self, seed: int, draw) -> None:
        _, labels = draw(96, seed)
        labels[:20, :30] = -1
        how = dataclasses.replace(
            Augmentation(), elastic_p=0.5, piecewise_p=0.5, perspective_p=0.5, wide_p=0.5, wide_range=(8, 40)
        )
        picture, drawn = random_warp(encoded(labels), labels, 64, how, np.random.default_rng(seed))
        assert picture.shape == (3, 64, 64)
        assert drawn.shape == (64, 64)
        for channel, mask in ((0, drawn > 0), (1, drawn < 0)):
            differ = (picture[channel].numpy() > 0.5) != mask
            inside = ndimage.binary_erosion(mask, iterations=2, border_value=1)
            outside = ndimage.binary_erosion(~mask, iterations=2, border_value=1)
            assert not (differ & (inside | outside)).any()

    def test_the_median_nucleus_becomes_as_large_as_asked(self) -> None:
        rows, columns = np.mgrid[:200, :200]
        labels = ((rows - 100) ** 2 + (columns - 100) ** 2 < 40**2).astype(np.int32)
        for wanted in (20.0, 40.0, 160.0):
            how = dataclasses.replace(STILL, diameter=wanted)
            _, drawn = random_warp(encoded(labels), labels, 256, how, np.random.default_rng(0))
            found = drawn == drawn[np.nonzero(drawn)][0] if drawn.any() else drawn
            areas = np.bincount(drawn[drawn > 0])
            assert found.any()
            assert np.sqrt(4 / np.pi * areas.max()) == pytest.approx(wanted, rel=0.1)

    def test_zoom_is_at_most_eightfold(self) -> None:
        labels = np.zeros((64, 64), np.int32)
        labels[30:32, 30:32] = 1
        how = dataclasses.replace(STILL, diameter=100)
        _, drawn = random_warp(encoded(labels), labels, 512, how, np.random.default_rng(0))
        assert np.bincount(drawn[drawn > 0]).max() == pytest.approx(4 * 8**2, rel=0.15)

    def test_a_crop_larger_than_the_image_is_mirrored(self) -> None:
        labels = np.zeros((20, 20), np.int32)
        labels[2:8, 3:9] = 1
        how = dataclasses.replace(STILL, diameter=float(np.sqrt(4 / np.pi * 36)))  # zoom 1
        picture, drawn = random_warp(encoded(labels), labels, 80, how, np.random.default_rng(1))
        assert drawn.max() > 4
        share = (drawn > 0).mean()
        assert share == pytest.approx((labels > 0).mean(), rel=0.4)
        assert picture[0].mean().item() == pytest.approx(share, abs=0.02)

    @pytest.mark.parametrize("zoom", [0.4, 1.0, 2.0])
    def test_a_zoom_range_is_of_the_images_own_scale(self, zoom: float) -> None:
        rows, columns = np.mgrid[:200, :200]
        labels = ((rows - 100) ** 2 + (columns - 100) ** 2 < 30**2).astype(np.int32)
        how = dataclasses.replace(STILL, zoom_range=(zoom, zoom))
        _, drawn = random_warp(encoded(labels), labels, 256, how, np.random.default_rng(0))
        areas = np.bincount(drawn[drawn > 0])
        assert np.sqrt(4 / np.pi * areas.max()) == pytest.approx(60 * zoom, rel=0.05)

    def test_zooms_are_drawn_from_the_whole_range(self) -> None:
        labels = np.zeros((64, 64), np.int32)
        labels[24:40, 24:40] = 1
        how = dataclasses.replace(STILL, zoom_range=(0.5, 2.0))
        found = []
        for seed in range(60):
            _, drawn = random_warp(encoded(labels), labels, 128, how, np.random.default_rng(seed))
            found.append(np.sqrt(np.bincount(drawn[drawn > 0]).max() / 256))
        assert 0.45 < min(found) < 0.65
        assert 1.6 < max(found) < 2.1
        assert np.median(np.log2(found)) == pytest.approx(0, abs=0.35)

    def test_what_is_not_turned_is_only_flipped(self, draw) -> None:
        image, labels = draw(48, 3)
        how = dataclasses.replace(STILL, zoom_range=(1, 1), turn=False)
        flips = [
            (image[::rows, ::columns], labels[::rows, ::columns]) for rows in (1, -1) for columns in (1, -1)
        ]
        seen = set()
        for seed in range(40):
            picture, drawn = random_warp(image, labels, 48, how, np.random.default_rng(seed))
            pixels = picture.permute(1, 2, 0).numpy() * 255
            which = [i for i, (flipped, _) in enumerate(flips) if np.abs(pixels - flipped).max() < 0.1]
            assert len(which) == 1
            assert ((drawn > 0) == (flips[which[0]][1] > 0)).all()
            seen.update(which)
        assert seen == {0, 1, 2, 3}

    def test_each_piece_of_a_nucleus_has_a_label_of_its_own(self) -> None:
        labels = np.zeros((64, 64), np.int32)
        labels[10:20, 10:20] = labels[10:20, 40:50] = 7
        _, drawn = random_warp(
            encoded(labels), labels, 128, dataclasses.replace(STILL, diameter=16), np.random.default_rng(0)
        )
        _, count = ndimage.label(drawn > 0)
        assert count >= 2
        assert drawn.max() == count

    @pytest.mark.parametrize("seed", range(6))
    def test_touching_nuclei_stay_two(self, seed: int) -> None:
        labels = np.zeros((48, 48), np.int32)
        labels[12:36, 12:24], labels[12:36, 24:36] = 5, 9
        _, drawn = random_warp(encoded(labels), labels, 48, STILL, np.random.default_rng(seed))
        assert len(np.unique(drawn[drawn > 0])) >= 2
        assert ndimage.label(drawn > 0)[1] < len(np.unique(drawn[drawn > 0]))

    def test_labels_beyond_sixteen_bits_stay_apart(self) -> None:
        labels = np.zeros((32, 32), np.int32)
        labels[4:28, 4:16], labels[4:28, 16:28] = 2**24, 2**24 + 1
        _, drawn = random_warp(encoded(labels), labels, 32, STILL, np.random.default_rng(0))
        assert len(np.unique(drawn[drawn > 0])) >= 2


class TestView:
    @settings(max_examples=40)
    @given(
        seed=st.integers(0, 10**6),
        height=st.sampled_from([1, 2, 5, 33, 64]),
        width=st.sampled_from([1, 3, 40, 64]),
        kind=st.sampled_from(["empty", "full", "ignored", "discs", "grey"]),
    )
    def test_any_image_gives_a_clean_sample(self, seed: int, height: int, width: int, kind: str) -> None:
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        labels = np.zeros((height, width), np.int32)
        if kind in ("full", "ignored"):
            labels[:] = 1 if kind == "full" else -1
        if kind in ("discs", "grey"):
            labels[height // 4 : height // 2 + 1, width // 4 : width // 2 + 1] = 3
            labels[-1] = -1
        if kind == "grey":
            image[:] = image[..., :1]
        picture, drawn = random_view(image, labels, 32, ALWAYS, rng)
        assert picture.shape == (3, 32, 32)
        assert picture.dtype == torch.float32
        assert drawn.shape == (32, 32)
        assert drawn.dtype == np.int32
        assert picture.isfinite().all()
        assert picture.min() >= 0
        assert picture.max() <= 1
        expected = {"empty": {0}, "full": {1}, "ignored": {-1}}
        if kind in expected:
            assert set(np.unique(drawn)) == expected[kind]
        present = np.unique(drawn[drawn > 0])
        assert present.tolist() == list(range(1, len(present) + 1))

    @settings(max_examples=30)
    @given(
        seed=st.integers(0, 10**6), crop=st.sampled_from([32, 64, 128]), side=st.sampled_from([1, 20, 31, 50])
    )
    def test_a_view_larger_than_the_image_is_whole(self, seed: int, crop: int, side: int) -> None:
        rng = np.random.default_rng(seed)
        image = rng.integers(100, 256, (side, side, 3), np.uint8)
        labels = np.zeros((side, side), np.int32)
        labels[side // 3 : side // 2 + 1, side // 3 : side // 2 + 1] = 1
        how = dataclasses.replace(STILL, zoom_range=(1, 1), piecewise_p=1, perspective_p=1)
        picture, drawn = random_view(image, labels, crop, how, rng)
        assert (picture.shape, drawn.shape) == ((3, crop, crop), (crop, crop))
        assert picture.min() >= 100 / 255 - 1e-6  # mirrored: nowhere black
        assert (drawn > 0).any()

    def test_a_change_that_is_off_draws_nothing(self, draw) -> None:
        """Or the samples of every recipe there is would change."""
        image, labels = draw(80, 0)
        drawn = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            random_view(image, labels, 48, Augmentation(), rng)
            drawn.append(rng.bit_generator.state["state"]["state"])
        assert drawn == DRAWN

    def test_paint_reaches_the_view(self, draw) -> None:
        image, labels = draw(80, 1)
        plain, painted = (
            random_view(
                image,
                labels,
                64,
                dataclasses.replace(STILL, zoom_range=(1, 1), turn=False, paint_p=probability),
                np.random.default_rng(3),
            )
            for probability in (0.0, 1.0)
        )
        assert (plain[0] - painted[0]).abs().mean() > 0.05
        assert (1 - plain[0] - painted[0]).abs().mean() > 0.05  # nor is it merely inverted
        assert painted[0].shape == plain[0].shape

    def test_clusters_reach_the_view(self, draw) -> None:
        image, labels = draw(80, 1)
        still = dataclasses.replace(STILL, zoom_range=(1, 1))
        counts = []
        for probability in (0.0, 1.0):
            how = dataclasses.replace(still, cluster_p=probability)
            views = [random_view(image, labels, 96, how, np.random.default_rng(seed)) for seed in range(6)]
            counts.append([int(drawn.max()) for _, drawn in views])
        assert sum(counts[1]) > sum(counts[0])

    def test_is_a_function_of_the_generator(self, draw) -> None:
        image, labels = draw(80, 0)
        torch.manual_seed(1)
        first = random_view(image, labels, 48, ALWAYS, np.random.default_rng(5))
        torch.manual_seed(2)
        np.random.seed(3)  # noqa: NPY002
        again = random_view(image, labels, 48, ALWAYS, np.random.default_rng(5))
        other = random_view(image, labels, 48, ALWAYS, np.random.default_rng(6))
        assert torch.equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])
        assert not torch.equal(first[0], other[0])

    def test_leaves_the_image_alone(self, draw) -> None:
        image, labels = draw(80, 0)
        before = image.copy(), labels.copy()
        for seed in range(5):
            random_view(image, labels, 48, ALWAYS, np.random.default_rng(seed))
        assert np.array_equal(image, before[0])
        assert np.array_equal(labels, before[1])


class TestBending:
    @settings(max_examples=50)
    @given(seed=st.integers(0, 10**6), count=st.integers(2, 8), side=st.integers(16, 60))
    def test_a_piecewise_affine_shift_folds_nothing(self, seed: int, count: int, side: int) -> None:
        rng = np.random.default_rng(seed)
        nodes = rng.choice([-1, 1], (count, count, 2)) * 0.2 * side / (count - 1)
        axis = np.arange(side) + 0.5
        places = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1) + piecewise_affine_shift(nodes, side)
        down, right = np.diff(places, axis=0)[:, :-1], np.diff(places, axis=1)[:-1]
        assert (down[..., 0] * right[..., 1] - down[..., 1] * right[..., 0]).min() > 0

    def test_a_piecewise_affine_shift_is_linear_in_each_triangle_and_continuous(self) -> None:
        nodes = np.random.default_rng(0).uniform(-1, 1, (3, 3, 2))
        shift = piecewise_affine_shift(nodes, 64)
        bend = np.abs(np.diff(shift, 2, axis=1)).max(axis=2) > 1e-9
        assert 0 < bend.mean() < 0.1  # only where a row crosses a side of a triangle
        assert np.abs(np.diff(shift, axis=0)).max() <= 2 / 32 + 1e-9
        assert np.abs(np.diff(shift, axis=1)).max() <= 2 / 32 + 1e-9
        assert np.abs(shift[31:33, 31:33] - nodes[1, 1]).max() < 0.1
        assert np.abs(shift[0, -1] - nodes[0, 2]).max() < 0.1

    def test_equal_nodes_shift_everything_alike(self) -> None:
        nodes = np.broadcast_to([3.0, -2.0], (4, 4, 2))
        np.testing.assert_allclose(piecewise_affine_shift(nodes, 33), np.broadcast_to([3, -2], (33, 33, 2)))

    @settings(max_examples=50)
    @given(seed=st.integers(0, 10**6))
    def test_perspective_keeps_lines_straight_and_nothing_is_folded(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        start, end = rng.uniform(-50, 50, (2, 2))
        line = start + np.linspace(0, 1, 20)[:, None] * (end - start)
        seen = tilted(line, rng.uniform(-0.2, 0.2, 2) / 50)
        along = seen[-1] - seen[0]
        aside = (seen - seen[0]) @ np.array([-along[1], along[0]])
        assert np.abs(aside).max() < 1e-6 * max(1, along @ along)
        assert (np.diff((seen - seen[0]) @ along) > 0).all()

    def test_no_tilt_no_change(self) -> None:
        offsets = np.random.default_rng(0).uniform(-9, 9, (5, 6, 2))
        assert np.array_equal(tilted(offsets, np.zeros(2)), offsets)
        assert not np.array_equal(tilted(offsets, np.array([0.01, 0])), offsets)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"blur_p": 1.5}, "blur_p is a probability"),
        ({"noise_p": float("nan")}, "noise_p is a probability"),
        ({"stretch": -0.1}, "stretch must be finite and not negative"),
        ({"diameter": 0.0}, "diameters must be positive"),
        ({"wide_range": (50.0, 10.0)}, "in order"),
        ({"cluster_p": -0.1}, "cluster_p is a probability"),
        ({"zoom_range": (0.1, 1.0)}, "zoom_range must lie between 1/8 and 8"),
        ({"zoom_range": (2.0, 1.0)}, "in order"),
        ({"zoom_range": (1.0, float("nan"))}, "zoom_range must lie between"),
    ],
)
def test_values_that_cannot_be_drawn_from(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Augmentation(**values)


@given(
    st.integers(1, 40),
    st.lists(st.floats(-2.5, 2.5), min_size=1, max_size=8),
    st.sampled_from(["bilinear", "nearest"]),
)
def test_the_part_that_is_seen_is_all_that_is_read(side: int, shares: list[float], mode: str) -> None:
    """Places up to a side beyond either end are read alike from the whole of an axis and from the part."""
    line = torch.from_numpy(np.random.default_rng(side).random(side))
    places = np.clip(np.array(shares) * side, -side, 2 * side)
    places += 0.25 - (places % 0.5)  # nowhere near a pixel's edge, where rounding chooses between two

    def read(window: slice) -> torch.Tensor:
        part = line[window][None, None, None]
        across = torch.from_numpy((places - window.start) * 2 / part.shape[-1] - 1)
        grid = torch.stack([across, torch.zeros_like(across)], -1)[None, None]
        return torch.nn.functional.grid_sample(part, grid, mode, "reflection", align_corners=False)

    part = seen_part(places, side)
    assert 0 <= part.start < part.stop <= side
    torch.testing.assert_close(read(part), read(slice(0, side)), rtol=0, atol=1e-9)


class TestWhatVaries:
    """What a key asks for happens, and not only its random draw."""

    @pytest.mark.parametrize(
        "change",
        [{"stretch": 0.3}, {"shear": 0.3}, {"elastic_p": 1.0}, {"piecewise_p": 1.0}, {"perspective_p": 1.0}],
    )
    def test_the_view_is_bent(self, change: dict[str, float]) -> None:
        """Beyond what turning, flipping and moving it could do: the nearest rigid motion leaves a third of a pixel."""
        axis = np.arange(32) - 15.5
        grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        how = dataclasses.replace(STILL, zoom_range=(1, 1), **change)
        left = []
        for seed in range(8):
            places = warp._places((64, 64), 32, 1.0, how, np.random.default_rng(seed)).reshape(-1, 2)
            places = places - places.mean(0)
            u, _, v = np.linalg.svd(grid.T @ places)
            left.append(np.abs(places - grid @ (u @ v)).max())
        assert sum(rest > 0.3 for rest in left) >= 6

    def test_it_is_turned_by_any_angle(self) -> None:
        how = dataclasses.replace(STILL, zoom_range=(1, 1))
        angles = []
        for seed in range(20):
            places = warp._places((64, 64), 32, 1.0, how, np.random.default_rng(seed))
            angles.append(np.degrees(np.arctan2(*(places[-1, 0] - places[0, 0]))) % 90)
        assert np.histogram(angles, 3, (0, 90))[0].min() >= 2

    def test_an_image_that_is_not_square_keeps_its_shape(self) -> None:
        labels = np.zeros((40, 160), np.int32)
        labels[10:30, 60:100] = 1
        how = dataclasses.replace(STILL, zoom_range=(0.5, 0.5), turn=False)
        _, drawn = random_warp(encoded(labels), labels, 80, how, np.random.default_rng(0))
        largest = np.bincount(drawn[drawn > 0]).argmax()
        rows, columns = np.nonzero(drawn == largest)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == pytest.approx((10, 20), abs=1)

    @pytest.mark.parametrize(
        ("how", "low", "high"),
        [({"diameter_octaves": 0.5}, 0.3, 0.7), ({"wide_p": 1.0}, 0.8, 1.6), ({}, 0, 1e-6)],
    )
    def test_diameters_vary(self, how: dict[str, float], low: float, high: float) -> None:
        labels = np.zeros((64, 64), np.int32)
        labels[20:40, 20:40] = 1
        varied = dataclasses.replace(STILL, **how)
        zooms = [np.log2(warp._zoom(labels, varied, np.random.default_rng(seed))) for seed in range(200)]
        assert low <= np.std(zooms) <= high
