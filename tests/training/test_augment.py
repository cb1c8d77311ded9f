import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nuxel.errors import UsageError
from nuxel.training.augment import Augmentation, random_appearance, random_view, random_warp

STILL = Augmentation(
    diameter_octaves=0, wide_p=0, stretch=0, shear=0, elastic_p=0, nucleus_contrast_p=0, stain_p=0, shuffle_p=0,
    grey_p=0, tint_p=0, invert_p=0, light_p=0, shading_p=0, blur_p=0, resolution_p=0, noise_p=0,
)  # fmt: skip
ALWAYS = dataclasses.replace(
    Augmentation(), **{f.name: 1.0 for f in dataclasses.fields(Augmentation) if f.name.endswith("_p")}
)


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
        how = dataclasses.replace(Augmentation(), elastic_p=0.5, wide_p=0.5, wide_range=(8, 40))
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
    @settings(max_examples=40, deadline=None)
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


class TestAppearance:
    def test_nothing_asked_nothing_changed(self) -> None:
        picture = torch.rand(3, 16, 16)
        labels = torch.zeros(16, 16, dtype=torch.int32)
        found = random_appearance(picture, labels, STILL, np.random.default_rng(0))
        assert torch.equal(found, picture)

    def test_inversion(self) -> None:
        picture = torch.rand(3, 16, 16)
        how = dataclasses.replace(STILL, invert_p=1)
        found = random_appearance(
            picture, torch.zeros(16, 16, dtype=torch.int32), how, np.random.default_rng(0)
        )
        assert torch.equal(found, 1 - picture)

    def test_shuffling_keeps_the_channels_as_a_set(self) -> None:
        picture = torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1).expand(3, 4, 4)
        how = dataclasses.replace(STILL, shuffle_p=1)
        orders = {
            tuple(
                random_appearance(
                    picture, torch.zeros(4, 4, dtype=torch.int32), how, np.random.default_rng(s)
                )[:, 0, 0].tolist()
            )
            for s in range(30)
        }
        assert len(orders) == 6
        assert all(sorted(order) == pytest.approx([0.1, 0.5, 0.9]) for order in orders)

    def test_grey_images_get_a_tint_and_no_stain(self) -> None:
        picture = torch.full((3, 4, 4), 0.5)
        labels = torch.zeros(4, 4, dtype=torch.int32)
        stained = dataclasses.replace(STILL, stain_p=1, shuffle_p=1, grey_p=1)
        assert torch.equal(random_appearance(picture, labels, stained, np.random.default_rng(0)), picture)
        tinted = random_appearance(
            picture, labels, dataclasses.replace(STILL, tint_p=1), np.random.default_rng(0)
        )
        assert tinted.max().item() == 0.5
        assert tinted.min().item() < 0.5

    def test_contrast_changes_nuclei_and_hardly_the_background(self, draw) -> None:
        image, labels = draw(64, 3)
        picture = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        how = dataclasses.replace(STILL, nucleus_contrast_p=1)
        found = random_appearance(picture, torch.from_numpy(labels), how, np.random.default_rng(0))
        difference = (found - picture).abs()[0].numpy()
        far = ndimage.binary_dilation(labels > 0, iterations=5)
        assert difference[~far].max() < 1e-6
        assert difference[labels > 0].mean() > 0.02


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"blur_p": 1.5}, "blur_p is a probability"),
        ({"noise_p": float("nan")}, "noise_p is a probability"),
        ({"stretch": -0.1}, "stretch must be finite and not negative"),
        ({"diameter": 0.0}, "diameters must be positive"),
        ({"wide_range": (50.0, 10.0)}, "in order"),
    ],
)
def test_values_that_cannot_be_drawn_from(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Augmentation(**values)
