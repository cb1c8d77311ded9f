import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage import color, data

from nuxel.training import appearance
from nuxel.training.appearance import compressed, embossed, random_appearance, restained, with_holes
from nuxel.training.augment import Augmentation

STILL = Augmentation(
    diameter_octaves=0, wide_p=0, stretch=0, shear=0, elastic_p=0, nucleus_contrast_p=0, stain_p=0, shuffle_p=0,
    grey_p=0, tint_p=0, invert_p=0, light_p=0, shading_p=0, blur_p=0, resolution_p=0, noise_p=0,
)  # fmt: skip


class TestAppearance:
    @pytest.mark.parametrize("angle", [0.0, 1.0, 4.0])
    def test_emboss_is_the_slope_towards_the_light(self, angle: float) -> None:
        rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
        ramp = (0.02 * rows + 0.05 * columns)[None].expand(3, -1, -1)
        assert torch.equal(embossed(ramp, angle, 0), ramp)
        relief = (embossed(ramp, angle, 2) - ramp)[:, 1:-1, 1:-1]
        expected = 2 * (0.02 * np.sin(angle) + 0.05 * np.cos(angle))
        torch.testing.assert_close(relief, torch.full_like(relief, expected))
        flat = torch.full((3, 5, 5), 0.4)
        assert torch.equal(embossed(flat, angle, 2), flat)

    def test_dropout_blackens_up_to_a_tenth(self) -> None:
        picture = torch.full((3, 64, 64), 0.5)
        labels = torch.zeros(64, 64, dtype=torch.int32)
        how = dataclasses.replace(STILL, dropout_p=1)
        together = set()
        for seed in range(12):
            found = random_appearance(picture, labels, how, np.random.default_rng(seed))
            lost = found == 0
            assert torch.equal(found[~lost], picture[~lost])
            assert 0.005 < lost.float().mean() < 0.12
            together.add(bool((lost[0] == lost[1]).all()))
        assert together == {True, False}

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

    def test_stains_are_unmixed_scaled_and_mixed_again(self) -> None:
        """Against scikit-image's colour deconvolution."""
        picture = torch.from_numpy(data.immunohistochemistry()[:40, :50]).permute(2, 0, 1).float() / 255
        picture = picture.clamp(1 / 256, 1)
        labels = torch.zeros(40, 50, dtype=torch.int32)
        how = dataclasses.replace(STILL, concentration_p=1)
        changed = random_appearance(picture, labels, how, np.random.default_rng(0))
        assert (changed - picture).abs().mean() > 0.01

        class Fixed:
            """What is drawn: the logarithms of the factors first, then the shifts."""

            def __init__(self, *drawn: float) -> None:
                self.drawn = iter(drawn)

            def normal(self, _mean: float, _spread: float, shape: tuple[int, ...]) -> np.ndarray:
                return np.full(shape, next(self.drawn))

        kept = appearance._other_concentrations(picture, Fixed(0, 0))
        torch.testing.assert_close(kept, picture, atol=1e-5, rtol=0)
        changed = appearance._other_concentrations(picture, Fixed(np.log(0.8), 0.05))
        density = -np.log(picture.permute(1, 2, 0).numpy())
        stains = density @ color.hed_from_rgb * 0.8 + 0.05
        expected = np.clip(np.exp(-stains @ color.rgb_from_hed), 0, 1)
        assert np.abs(changed.permute(1, 2, 0).numpy() - expected).max() < 1e-4

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
        "name",
        [
            "stain_p",
            "grey_p",
            "light_p",
            "shading_p",
            "blur_p",
            "resolution_p",
            "noise_p",
            "shuffle_p",
            "invert_p",
            "concentration_p",
            "emboss_p",
            "dropout_p",
            "restain_p",
            "compression_p",
        ],
    )
    def test_the_picture_is_another(self, name: str) -> None:
        how = dataclasses.replace(STILL, **{name: 1.0})
        picture = torch.from_numpy(np.random.default_rng(0).uniform(0.2, 0.8, (3, 32, 32)).astype(np.float32))
        labels = torch.zeros(32, 32, dtype=torch.int32)
        same = random_appearance(picture.clone(), labels, STILL, np.random.default_rng(0))
        assert torch.allclose(same, picture, atol=1e-6)
        changed = [
            random_appearance(picture.clone(), labels, how, np.random.default_rng(seed)) for seed in range(8)
        ]
        assert sum(bool((one - picture).abs().mean() > 1e-3) for one in changed) >= 6


class TestRestained:
    @given(st.integers(0, 2**32 - 1))
    def test_any_picture_stays_one(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        picture = torch.from_numpy(rng.random((3, 9, 12), np.float32).round(int(rng.integers(0, 3))))
        before = picture.clone()
        found = restained(picture, rng)
        assert found.shape == picture.shape
        assert found.dtype == torch.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert torch.equal(picture, before)

    def test_white_stays_white(self) -> None:
        for seed in range(10):
            found = restained(torch.ones(3, 8, 8), np.random.default_rng(seed))
            torch.testing.assert_close(found, torch.ones(3, 8, 8), atol=1e-4, rtol=0)

    def test_haematoxylin_stays_blue_and_its_amount_in_order(self) -> None:
        """Twice the dye is twice the density, in whatever colour it is shown."""
        dye = torch.tensor(color.rgb_from_hed[0].astype(np.float32))
        picture = (-dye[:, None, None] * torch.tensor([0.5, 1.0]).view(1, 1, 2)).exp()
        for seed in range(10):
            density = -restained(picture, np.random.default_rng(seed)).log()
            torch.testing.assert_close(density[..., 1], 2 * density[..., 0], atol=1e-3, rtol=1e-3)
            assert (
                density[:2, 0, 1] > density[2, 0, 1]
            ).all()  # less of blue light is taken than of red and green
            assert 0.2 < density.norm(dim=0)[0, 1] / dye.norm() < 1.6

    def test_what_is_not_haematoxylin_varies_from_almost_none_to_far_too_much(self) -> None:
        dye = torch.tensor(color.rgb_from_hed[1].astype(np.float32))
        picture = (-0.4 * dye[:, None, None]).exp().expand(3, 16, 16)
        strengths, hues = [], set()
        for seed in range(60):
            density = -restained(picture, np.random.default_rng(seed)).log()
            strengths.append(float(density.norm(dim=0).max()) / (0.4 * float(dye.norm())))
            hues.add(
                int(
                    (density.mean((1, 2)) > 0.5 * density.mean((1, 2)).max()).float()
                    @ torch.tensor([1.0, 2, 4])
                )
            )
        assert min(strengths) < 0.3
        assert max(strengths) > 3
        assert len(hues) >= 2

    def test_some_views_hold_less_of_it_in_some_places(self) -> None:
        picture = (-0.4 * torch.tensor(color.rgb_from_hed[1].astype(np.float32))[:, None, None]).exp()
        picture = picture.expand(3, 16, 16)
        even = 0
        for seed in range(20):
            density = -restained(picture, np.random.default_rng(seed)).log()
            even += bool(density.std((1, 2)).max() < 1e-5)
        assert 4 <= even <= 16


class TestHoles:
    def scene(self, ground: float, nuclei: float) -> tuple[torch.Tensor, np.ndarray]:
        """Nuclei on a ground that is emptier, further from their own level, in its first three rows."""
        labels = np.zeros((64, 64), np.int32)
        labels[10:20, 10:20], labels[40:52, 30:42] = 1, 2
        picture = torch.full((3, 64, 64), ground)
        picture[:, torch.from_numpy(labels > 0)] = nuclei
        picture[:, :3] = ground + (ground - nuclei) / 2
        return picture, labels

    @pytest.mark.parametrize(("ground", "nuclei"), [(0.7, 0.3), (0.3, 0.7)])
    def test_they_are_emptier_than_the_ground_and_beside_the_nuclei(
        self, ground: float, nuclei: float
    ) -> None:
        picture, labels = self.scene(ground, nuclei)
        parts = []
        for seed in range(10):
            found = with_holes(picture, labels, np.random.default_rng(seed))
            assert torch.equal(
                found[:, torch.from_numpy(labels > 0)], picture[:, torch.from_numpy(labels > 0)]
            )
            change = (found - picture)[:, 3:] * np.sign(ground - nuclei)
            assert change.min() > -1e-6
            assert change.max() > 0.05
            assert 0 <= found.min() <= found.max() <= 1
            parts.append(float((change.amax(0) > 0.05).float().mean()))
        assert 0 < np.mean(parts) < 0.6

    def test_it_needs_nuclei_that_differ_from_the_ground(self) -> None:
        labels = np.zeros((16, 16), np.int32)
        picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
        assert with_holes(picture, labels, np.random.default_rng(0)) is picture
        assert with_holes(picture, labels + 1, np.random.default_rng(0)) is picture
        labels[4:8, 4:8] = 1
        flat = torch.full((3, 16, 16), 0.5)
        assert with_holes(flat, labels, np.random.default_rng(0)) is flat

    def test_they_reach_the_view(self) -> None:
        picture, labels = self.scene(0.7, 0.3)
        how = dataclasses.replace(STILL, holes_p=1)
        found = random_appearance(picture, torch.from_numpy(labels), how, np.random.default_rng(0))
        assert (found > picture + 0.05).any()


def test_compression_is_what_pillow_makes_of_it() -> None:
    pixels = data.immunohistochemistry()[:40, :56]
    picture = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    errors = [float((compressed(picture, quality) - picture).abs().mean()) for quality in (10, 50, 95)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.03 < errors[0]
    assert compressed(picture, 50).shape == picture.shape
