import dataclasses

import numpy as np
import pytest
import timm
import torch

from nuxel.errors import NuxelError, UsageError
from nuxel.systems.multihead_unet import LossConfig, MultiheadUNet, MultiheadUNetNetwork, NetworkConfig
from nuxel.training.model_card import measure_reach


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


SMALL = NetworkConfig(weights="none", depth=3, widths=(8, 8))


@pytest.fixture(scope="module")
def network() -> MultiheadUNetNetwork:
    """Random weights, in evaluation mode, double precision, depth 3."""
    torch.manual_seed(0)
    return MultiheadUNetNetwork(SMALL).eval().double()


@pytest.fixture(scope="module")
def reach(network: MultiheadUNetNetwork) -> int:
    return measure_reach(network, network.stride)


class TestNetwork:
    def test_six_maps_of_the_size_of_the_image(self, network: MultiheadUNetNetwork) -> None:
        with torch.no_grad():
            assert network(torch.rand(2, 3, 16, 40, dtype=torch.float64)).shape == (2, 6, 16, 40)
        assert network.stride == 8

    def test_the_default_is_small_enough_to_ship(self) -> None:
        default = MultiheadUNetNetwork(NetworkConfig(weights="none"))
        kept = ("conv_stem", "bn1", *(f"blocks.{stage}." for stage in range(5)))
        whole = timm.create_model("tf_efficientnet_lite0").named_parameters()
        assert count(default.encoder) == sum(p.numel() for name, p in whole if name.startswith(kept))
        assert count(default.decoder) == 793856
        assert count(default.head) == 24 * 64 + 24
        assert count(default) < 1.6e6

    def test_the_image_is_normalised_inside(self, network: MultiheadUNetNetwork) -> None:
        """What reaches the encoder has ImageNet's mean and spread taken off."""
        seen = []
        hook = network.encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        with torch.no_grad():
            network(torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64))
        hook.remove()
        expected = [(0.5 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
        assert seen[0][0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)
        assert not any(key in network.state_dict() for key in ("mean", "std"))


class TestLocality:
    """No operation looks at the whole image: what makes tiles with a halo give the answer of the whole."""

    def test_shifting_the_image_by_the_stride_shifts_the_answer(
        self, network: MultiheadUNetNetwork, reach: int
    ) -> None:
        stride = network.stride
        margin = -(-reach // stride) * stride + stride
        side = 2 * margin + 4 * stride
        image = torch.rand(1, 3, side, side, dtype=torch.float64)
        with torch.no_grad():
            here = network(image)
            there = network(torch.roll(image, (stride, -stride), (2, 3)))
        moved = torch.roll(here, (stride, -stride), (2, 3))
        inner = (..., slice(margin, side - margin), slice(margin, side - margin))
        assert (moved - there)[inner].abs().max() < 1e-12
        assert (here - there)[inner].abs().max() > 1e-6

    def changed_blocks(
        self, network: MultiheadUNetNetwork, side: int, amount: float
    ) -> list[tuple[int, int]]:
        """For each of eight neighbouring columns of an image: how far left and right of it the answer changes
        when the column does, counted from the near edge of the outermost block of stride x stride that does.
        """
        image = 0.6 + 0.3 * torch.rand(
            1, 3, 8, side, dtype=torch.float64
        )  # above the mean: nothing is rectified
        found = []
        with torch.no_grad():
            before = network(image)
            for place in range(side // 2, side // 2 + 8):
                changed = image.clone()
                changed[..., place] += amount
                differ = torch.nonzero((network(changed) - before).abs().amax((0, 1, 2)))
                left, right = int(differ.min()) // 8 * 8 + 7, int(differ.max()) // 8 * 8
                found.append((place - left, right - place))
        return found

    def test_no_output_beyond_the_reach_sees_a_pixel(self, network: MultiheadUNetNetwork, reach: int) -> None:
        side = 2 * (-(-reach // 8) + 4) * 8
        assert max(map(max, self.changed_blocks(network, side, 0.5))) <= reach

    def test_the_reach_is_exact_where_no_path_cancels_another(self, reach: int) -> None:
        torch.manual_seed(1)
        positive = MultiheadUNetNetwork(SMALL).eval().double()
        for name, parameter in positive.named_parameters():
            if name.endswith("weight") and parameter.ndim == 4:
                parameter.data = parameter.data.abs()
                parameter.data /= parameter.data.flatten(1).sum(1).max()
        side = 2 * (-(-reach // 8) + 4) * 8
        assert max(map(max, self.changed_blocks(positive, side, 1e-2))) == reach

    def test_a_network_that_looks_at_the_whole_image_is_refused(self) -> None:
        whole = NetworkConfig(encoder="efficientnet_b0", weights="none", depth=3, widths=(8, 8))
        with pytest.raises(NuxelError, match="depend on the tiling"):
            measure_reach(MultiheadUNetNetwork(whole), 8)

    def test_height_and_width_may_be_anything_that_is_a_multiple_of_the_stride(
        self, network: MultiheadUNetNetwork
    ) -> None:
        with torch.no_grad():
            assert network(torch.rand(1, 3, 8, 8, dtype=torch.float64)).shape == (1, 6, 8, 8)


class TestSystem:
    system = MultiheadUNet(network=SMALL)

    def perfect(self, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        targets = torch.from_numpy(self.system.draw_targets(labels))[None]
        return torch.cat([(2 * targets[:, :3] - 1) * 40, targets[:, 3:]], 1), targets

    def labels(self) -> np.ndarray:
        labels = np.zeros((16, 16), np.int32)
        labels[2:8, 2:8] = 1
        labels[2:8, 8:14] = 2
        return labels

    def test_a_perfect_answer_costs_nearly_nothing(self) -> None:
        outputs, targets = self.perfect(self.labels())
        losses = self.system.compute_loss(outputs, targets, torch.ones(1, 1, 16, 16))
        assert set(losses) == {"nucleus", "shrunk", "touching", "offset", "log_diameter", "loss"}
        assert losses["loss"].item() == pytest.approx(0, abs=1e-5)

    def test_the_loss_is_the_weighted_sum(self) -> None:
        _, targets = self.perfect(self.labels())
        outputs, annotated = torch.randn(1, 6, 16, 16), torch.ones(1, 1, 16, 16)
        ones = LossConfig(nucleus=1, shrunk=1, touching=1, offset=1, log_diameter=1)
        plain = dataclasses.replace(self.system, loss=ones).compute_loss(outputs, targets, annotated)
        weighted = self.system.compute_loss(outputs, targets, annotated)
        total = 0.0
        for name, weight in dataclasses.asdict(self.system.loss).items():
            assert weighted[name].item() == pytest.approx(weight * plain[name].item())
            total += weighted[name].item()
        assert weighted["loss"].item() == pytest.approx(total)

    def test_offset_and_diameter_count_inside_nuclei_only(self) -> None:
        outputs, targets = self.perfect(self.labels())
        outputs.movedim(1, -1)[targets[:, 0] == 0] = torch.tensor([-40.0, -40.0, -40.0, 50.0, 50.0, 50.0])
        annotated = torch.ones(1, 1, 16, 16)
        found = self.system.compute_loss(outputs, targets, annotated)
        assert found["log_diameter"].item() == found["offset"].item() == 0
        outputs.movedim(1, -1)[targets[:, 0] == 1] += torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0])
        found = self.system.compute_loss(outputs, targets, annotated)
        assert found["log_diameter"].item() == pytest.approx(self.system.loss.log_diameter * 0.875)
        assert found["offset"].item() == pytest.approx(self.system.loss.offset * 0.95)

    def test_not_annotated_pixels_change_nothing(self) -> None:
        outputs, targets = self.perfect(self.labels())
        annotated = torch.ones(1, 1, 16, 16)
        annotated[..., :8] = 0
        garbled = torch.where(annotated == 0, torch.full_like(outputs, 3.0), outputs)
        first = self.system.compute_loss(outputs, targets, annotated)["loss"]
        assert torch.equal(first, self.system.compute_loss(garbled, targets, annotated)["loss"])

    def test_probabilities_are_three_sigmoids_and_the_rest_as_it_is(self) -> None:
        outputs = torch.randn(1, 6, 2, 2)
        found = self.system.probabilities(outputs)
        assert torch.equal(found[:, :3], outputs[:, :3].sigmoid())
        assert torch.equal(found[:, 3:], outputs[:, 3:])

    def test_every_parameter_is_in_one_group(self, network: MultiheadUNetNetwork) -> None:
        groups = self.system.parameter_groups(network)
        assert list(groups) == ["encoder", "decoder"]
        numbers = [id(p) for group in groups.values() for p in group]
        assert sorted(numbers) == sorted(id(p) for p in network.parameters())
        assert {id(p) for p in groups["encoder"]} == {id(p) for p in network.encoder.parameters()}
        with pytest.raises(TypeError, match="MultiheadUNetNetwork"):
            self.system.parameter_groups(torch.nn.Linear(1, 1))

    @pytest.mark.parametrize(("depth", "widths"), [(4, (8, 8)), (1, ()), (3, (8, 0)), (0, ())])
    def test_widths_that_do_not_fit_the_depth(self, depth: int, widths: tuple[int, ...]) -> None:
        with pytest.raises(UsageError, match="one positive width fewer than its depth"):
            NetworkConfig(depth=depth, widths=widths)
