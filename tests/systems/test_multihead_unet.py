import dataclasses

import numpy as np
import pytest
import timm
import torch
from timm.layers import StdConv2d
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn
from torch.nn import MaxPool2d

from nuxel.errors import NuxelError, UsageError
from nuxel.losses.segmentation import cross_entropy, soft_dice, weighted_cross_entropy
from nuxel.nn.inception_se import InceptionSEUpBlock, SqueezeExcitation
from nuxel.nn.multihead_unet import ConcatUpBlock, SubpixelHead, UpBlock
from nuxel.systems.multihead_unet import (
    HEADS,
    MAPS,
    MASK_LOSSES,
    LossConfig,
    MultiheadUNet,
    MultiheadUNetNetwork,
    NetworkConfig,
)
from nuxel.training.model_card import make_card, measure_reach
from nuxel.training.recipe import make_recipe


class Nothing(torch.nn.Module):
    """Answers zero."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 0


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


SMALL = NetworkConfig(weights="none", depth=3, widths=(8, 8))
WHOLE = NetworkConfig(encoder="efficientnet_b0", weights="none", depth=3, widths=(8, 8))
PLAIN = NetworkConfig(
    encoder="plain",
    weights="none",
    depth=2,
    encoder_widths=(4, 6, 8),
    decoder="concat",
    widths=(6, 4),
    activation="selu",
    padding="mirror",
)
INCEPTION_SE = dataclasses.replace(PLAIN, decoder="inception_se", widths=(8, 4), reduction=2)
XCEPTION = NetworkConfig(
    encoder="legacy_xception", weights="none", depth=2, decoder="inception_se", widths=(8, 4), reduction=2
)
FAMILY = {"small": SMALL, "whole": WHOLE, "plain": PLAIN, "inception_se": INCEPTION_SE, "xception": XCEPTION}


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


class TestFamily:
    @pytest.mark.parametrize("name", FAMILY)
    def test_maps_have_the_size_of_the_image_and_every_weight_learns(self, name: str) -> None:
        config = FAMILY[name]
        torch.manual_seed(0)
        built = MultiheadUNetNetwork(config)
        maps = built(torch.rand(2, 3, 2 * built.stride, 4 * built.stride))
        assert maps.shape == (2, 6, 2 * built.stride, 4 * built.stride)
        (maps**2).sum().backward()
        assert [key for key, p in built.named_parameters() if p.grad is None] == []

    @pytest.mark.parametrize(
        ("name", "block", "head"),
        [
            ("small", UpBlock, SubpixelHead),
            ("plain", ConcatUpBlock, torch.nn.Conv2d),
            ("inception_se", InceptionSEUpBlock, torch.nn.Conv2d),
            ("xception", InceptionSEUpBlock, torch.nn.Conv2d),
        ],
    )
    def test_the_decoder_is_the_one_asked_for(self, name: str, block: type, head: type) -> None:
        built = MultiheadUNetNetwork(FAMILY[name])
        assert [type(part) for part in built.decoder.blocks] == [block] * len(FAMILY[name].widths)
        assert type(built.head) is head

    def test_each_block_refines_by_as_many_convolutions_as_asked_for(self) -> None:
        built = MultiheadUNetNetwork(dataclasses.replace(SMALL, convolutions=(3, 1)))
        assert [len(part.refine) for part in built.decoder.blocks] == [9, 3]

    def test_additive_decoder_of_a_plain_encoder_ends_at_full_size(self) -> None:
        built = MultiheadUNetNetwork(dataclasses.replace(PLAIN, decoder="additive"))
        assert type(built.head) is torch.nn.Conv2d
        assert built(torch.rand(1, 3, 8, 12)).shape == (1, 6, 8, 12)

    def test_batch_normalisation_follows_every_convolution_of_ours(self) -> None:
        """But for those of squeeze-and-excitation, which see one value a channel, and the head."""
        for config in (PLAIN, INCEPTION_SE):
            built = MultiheadUNetNetwork(config)
            squeezes = sum(isinstance(part, SqueezeExcitation) for part in built.modules())
            convolutions = [
                m for m in built.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
            ]
            norms = [m for m in built.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            assert len(norms) == len(convolutions) - 1 - 2 * squeezes

    @pytest.mark.parametrize(
        ("changes", "variance"),
        [
            ({}, 2 / (9 * 24 + 9 * 24)),
            ({"initialisation": "he"}, 2 / (9 * 24)),
            ({"initialisation": "pytorch"}, 1 / 3 / (9 * 24)),
            ({"encoder": SMALL.encoder, "encoder_widths": ()}, 1 / (9 * 24)),
            ({"encoder": SMALL.encoder, "encoder_widths": (), "activation": "elu"}, 2 / (9 * 24)),
            ({"encoder": SMALL.encoder, "encoder_widths": (), "activation": "relu"}, 1 / 3 / (9 * 24)),
        ],
    )
    def test_initialisation_suits_encoder_and_activation(self, changes: dict, variance: float) -> None:
        torch.manual_seed(0)
        config = dataclasses.replace(PLAIN, widths=(24, 24), **changes)
        last = MultiheadUNetNetwork(config).decoder.blocks[0].refine[1][0].weight
        assert last.shape == (24, 24, 3, 3)
        assert last.var().item() == pytest.approx(variance, rel=0.1)

    def test_a_timm_encoder_keeps_its_own_weights(self) -> None:
        config = dataclasses.replace(SMALL, weights="imagenet", initialisation="he")
        shipped = MultiheadUNetNetwork(dataclasses.replace(config, initialisation="pytorch"))
        drawn = MultiheadUNetNetwork(config)
        for (key, one), other in zip(
            shipped.encoder.state_dict().items(), drawn.encoder.state_dict().values(), strict=True
        ):
            assert torch.equal(one, other), key

    def test_xception_sees_images_as_its_weights_expect(self) -> None:
        built = MultiheadUNetNetwork(XCEPTION)
        assert built.mean.flatten().tolist() == built.std.flatten().tolist() == [0.5] * 3

    @pytest.mark.parametrize("activation", ["relu", "elu", "selu"])
    def test_activation_of_every_block(self, activation: str) -> None:
        kinds = {"relu": torch.nn.ReLU, "elu": torch.nn.ELU, "selu": torch.nn.SELU}
        built = MultiheadUNetNetwork(dataclasses.replace(PLAIN, activation=activation))
        assert {type(m) for m in built.modules() if isinstance(m, tuple(kinds.values()))} == {
            kinds[activation]
        }

    def test_a_batch_of_one_where_normalisation_has_one_value_left(self) -> None:
        built = MultiheadUNetNetwork(PLAIN)
        with pytest.raises(NuxelError, match=r"batch of 1 of 4 x 4 pixels .* batch of at least 2"):
            built(torch.rand(1, 3, 4, 4))
        assert built(torch.rand(2, 3, 4, 4)).isfinite().all()
        assert built.eval()(torch.rand(1, 3, 4, 4)).isfinite().all()


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

    @pytest.mark.parametrize("config", [WHOLE, INCEPTION_SE], ids=["efficientnet_b0", "inception_se"])
    def test_a_network_that_looks_at_the_whole_image_has_no_reach(self, config: NetworkConfig) -> None:
        torch.manual_seed(0)
        assert measure_reach(MultiheadUNetNetwork(config), 2**config.depth) is None

    @pytest.mark.parametrize("norm", [torch.nn.Identity(), torch.nn.GroupNorm(2, 8)], ids=["local", "global"])
    def test_standardised_weights_and_group_normalisation_are_seen_through(
        self, norm: torch.nn.Module
    ) -> None:
        """Equal weights would be standardised to nothing, and equal pixels would hide what a normalisation sees."""
        torch.manual_seed(0)
        layers = [StdConv2d(3, 8, 3, padding=1), norm, torch.nn.ReLU(), StdConv2d(8, 8, 3, padding=1)]
        reach = measure_reach(torch.nn.Sequential(*layers), 2)
        assert reach == (2 if isinstance(norm, torch.nn.Identity) else None)

    def test_an_answer_that_depends_on_nothing_is_refused(self) -> None:
        with pytest.raises(NuxelError, match="depends on no pixel"):
            measure_reach(Nothing(), 2)

    def test_a_local_network_that_looks_too_far_for_tiles_is_refused(self) -> None:
        layers = [torch.nn.Conv2d(3, 3, (1, 5), padding=(0, 2)) for _ in range(33)]  # 66 pixels each way
        with pytest.raises(NuxelError, match="further than 64 pixels, too far for tiles"):
            measure_reach(torch.nn.Sequential(*layers), 2)

    @pytest.mark.parametrize(
        "pool",
        [
            MaxPool2d(3, 2, 1),
            MaxPool2d((1, 3), (2, 2), (0, 1)),
            MaxPool2d(3, 2, ceil_mode=True),
            MaxPool2d(2, 2, dilation=2, ceil_mode=True),
            MaxPool2dSame(3, 2),
        ],
    )
    def test_the_whole_window_of_a_max_pooling_counts(self, pool: MaxPool2d) -> None:
        """Its maximum is one pixel, but may be any: twice 3 pixels with stride 2 reaches 1 + 2 pixels up or down."""
        up = torch.nn.Upsample(scale_factor=4)
        assert measure_reach(torch.nn.Sequential(pool, pool, up), 4) == 3

    @pytest.mark.parametrize(
        "config", [PLAIN, dataclasses.replace(PLAIN, padding="zero", decoder="additive")]
    )
    def test_no_output_of_a_plain_unet_beyond_its_reach_sees_a_pixel(self, config: NetworkConfig) -> None:
        torch.manual_seed(0)
        plain = MultiheadUNetNetwork(config).eval().double()
        reach = measure_reach(plain, plain.stride)
        assert reach is not None
        side = 2 * (-(-reach // plain.stride) + 4) * plain.stride
        image = torch.rand(1, 3, 8, side, dtype=torch.float64)
        with torch.no_grad():
            before = plain(image)
            for place in range(side // 2, side // 2 + plain.stride):
                changed = image.clone()
                changed[..., place] += 0.5
                differ = torch.nonzero((plain(changed) - before).abs().amax((0, 1, 2)))
                left = int(differ.min()) // plain.stride * plain.stride + plain.stride - 1
                right = int(differ.max()) // plain.stride * plain.stride
                assert max(place - left, right - place) <= reach

    def test_height_and_width_may_be_anything_that_is_a_multiple_of_the_stride(
        self, network: MultiheadUNetNetwork
    ) -> None:
        with torch.no_grad():
            assert network(torch.rand(1, 3, 8, 8, dtype=torch.float64)).shape == (1, 6, 8, 8)


class TestSystem:
    system = MultiheadUNet(network=SMALL)

    def perfect(self, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        targets = torch.from_numpy(self.system.draw_targets(labels))[None].float()
        return torch.cat([(2 * targets[:, :3] - 1) * 40, targets[:, 3:]], 1), targets

    def labels(self) -> np.ndarray:
        labels = np.zeros((16, 16), np.int32)
        labels[2:8, 2:8] = 1
        labels[2:8, 8:14] = 2
        return labels

    def test_a_perfect_answer_costs_nearly_nothing(self) -> None:
        outputs, targets = self.perfect(self.labels())
        losses = self.system.compute_loss(nn.Identity(), outputs, targets, torch.ones(1, 1, 16, 16))
        assert set(losses) == {"nucleus", "shrunk", "touching", "offset", "log_diameter", "loss"}
        assert losses["loss"].item() == pytest.approx(0, abs=1e-5)

    def test_the_loss_is_the_weighted_sum(self) -> None:
        _, targets = self.perfect(self.labels())
        outputs, annotated = torch.randn(1, 6, 16, 16), torch.ones(1, 1, 16, 16)
        ones = LossConfig(nucleus=1, shrunk=1, touching=1, offset=1, log_diameter=1)
        plain = dataclasses.replace(self.system, loss=ones).compute_loss(
            nn.Identity(), outputs, targets, annotated
        )
        weighted = self.system.compute_loss(nn.Identity(), outputs, targets, annotated)
        total = 0.0
        for name in HEADS:
            weight = getattr(self.system.loss, name)
            assert weighted[name].item() == pytest.approx(weight * plain[name].item())
            total += weighted[name].item()
        assert weighted["loss"].item() == pytest.approx(total)

    def test_offset_and_diameter_count_inside_nuclei_only(self) -> None:
        outputs, targets = self.perfect(self.labels())
        outputs.movedim(1, -1)[targets[:, 0] == 0] = torch.tensor([-40.0, -40.0, -40.0, 50.0, 50.0, 50.0])
        annotated = torch.ones(1, 1, 16, 16)
        found = self.system.compute_loss(nn.Identity(), outputs, targets, annotated)
        assert found["log_diameter"].item() == found["offset"].item() == 0
        outputs.movedim(1, -1)[targets[:, 0] == 1] += torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0])
        found = self.system.compute_loss(nn.Identity(), outputs, targets, annotated)
        assert found["log_diameter"].item() == pytest.approx(self.system.loss.log_diameter * 0.875)
        assert found["offset"].item() == pytest.approx(self.system.loss.offset * 0.95)

    def test_not_annotated_pixels_change_nothing(self) -> None:
        outputs, targets = self.perfect(self.labels())
        annotated = torch.ones(1, 1, 16, 16)
        annotated[..., :8] = 0
        garbled = torch.where(annotated == 0, torch.full_like(outputs, 3.0), outputs)
        first = self.system.compute_loss(nn.Identity(), outputs, targets, annotated)["loss"]
        assert torch.equal(
            first, self.system.compute_loss(nn.Identity(), garbled, targets, annotated)["loss"]
        )

    def test_probabilities_are_three_sigmoids_and_the_diameter_as_it_is(self) -> None:
        """The offsets only teach: they are learned, and not predicted."""
        outputs = torch.randn(1, 6, 2, 2)
        found = self.system.answer(nn.Identity(), outputs)
        assert found.shape == (1, 4, 2, 2)
        assert torch.equal(found[:, :3], outputs[:, :3].sigmoid())
        assert torch.equal(found[:, 3], outputs[:, 5])
        assert self.system.learned == MAPS
        assert self.system.maps == ("nucleus", "shrunk", "touching", "log_diameter")

    def test_every_parameter_is_in_one_group(self, network: MultiheadUNetNetwork) -> None:
        groups = self.system.parameter_groups(network)
        assert list(groups) == ["encoder", "decoder"]
        numbers = [id(p) for group in groups.values() for p in group]
        assert sorted(numbers) == sorted(id(p) for p in network.parameters())
        assert {id(p) for p in groups["encoder"]} == {id(p) for p in network.encoder.parameters()}
        with pytest.raises(TypeError, match="MultiheadUNetNetwork"):
            self.system.parameter_groups(torch.nn.Linear(1, 1))

    def test_a_card_says_that_a_network_is_global(self) -> None:
        raw = {"system": "multihead_unet", "schedule": {"crop": 96}}
        recipe = make_recipe(raw)
        card = make_card(recipe, MultiheadUNetNetwork(INCEPTION_SE))
        assert (card.context, card.reach, card.window) == ("global", 0, 96)
        wider = make_recipe({**raw, "schedule": {"crop": 96, "window": 128}})
        assert make_card(wider, MultiheadUNetNetwork(INCEPTION_SE)).window == 128
        card = make_card(recipe, MultiheadUNetNetwork(PLAIN))
        assert (card.context, card.window) == ("local", None)
        assert card.reach == measure_reach(MultiheadUNetNetwork(PLAIN), 4)


class TestHeads:
    def system(self, *heads: str, **loss: object) -> MultiheadUNet:
        return MultiheadUNet(dataclasses.replace(SMALL, heads=heads), loss=LossConfig(**loss))

    def labels(self) -> np.ndarray:
        labels = np.zeros((8, 16), np.int32)
        labels[1:6, 2:8] = 1
        labels[1:7, 8:14] = 2
        return labels

    @pytest.mark.parametrize(
        ("heads", "maps"),
        [
            (("nucleus",), (0,)),
            (("nucleus", "touching"), (0, 2)),
            (("log_diameter", "nucleus"), (0, 5)),
            (("offset", "touching", "nucleus"), (0, 2, 3, 4)),
            (("nucleus", "shrunk", "touching"), (0, 1, 2)),
        ],
    )
    def test_everything_follows_from_the_heads(self, heads: tuple[str, ...], maps: tuple[int, ...]) -> None:
        """Targets, losses and probabilities are those of the whole system, restricted."""
        system, whole = self.system(*heads), MultiheadUNet(SMALL)
        assert system.learned == tuple(MAPS[m] for m in maps)
        assert system.maps == tuple(MAPS[m] for m in maps if m not in (3, 4))
        drawn = whole.draw_targets(self.labels())
        assert np.array_equal(system.draw_targets(self.labels()), drawn[list(maps)])
        torch.manual_seed(0)
        outputs, targets = torch.randn(2, 6, 8, 16), torch.from_numpy(drawn).expand(2, -1, -1, -1)
        annotated = (torch.rand(2, 1, 8, 16) < 0.8).float()
        found = system.compute_loss(nn.Identity(), outputs[:, maps], targets[:, maps], annotated)
        of_all = whole.compute_loss(nn.Identity(), outputs, targets, annotated)
        assert set(found) == {*heads, "loss"}
        assert all(found[head].item() == pytest.approx(of_all[head].item()) for head in heads)
        assert found["loss"].item() == pytest.approx(sum(found[head].item() for head in heads))
        kept = [whole.maps.index(name) for name in system.maps]
        assert torch.equal(
            system.answer(nn.Identity(), outputs[:, maps]), whole.answer(nn.Identity(), outputs)[:, kept]
        )

    def test_the_network_has_a_map_for_each(self) -> None:
        built = self.system("nucleus", "offset").build()
        assert built(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)

    def test_the_card_names_them(self) -> None:
        raw = {
            "system": "multihead_unet",
            "network": {"weights": "none", "depth": 2, "widths": [4], "heads": ["nucleus", "touching"]},
            "decoder_rule": {"split": "none"},
            "loss": {"masks": "soft_dice", "by_head": {"touching": "weighted_cross_entropy"}},
        }
        recipe = make_recipe(raw)
        assert make_card(recipe, recipe.system.build()).maps == ("nucleus", "touching")
        assert recipe.system.loss.terms("touching") == ("weighted_cross_entropy",)

    def test_losses_are_chosen_for_all_masks_or_one(self) -> None:
        system = self.system(
            "nucleus",
            "touching",
            masks="cross_entropy",
            by_head={"touching": "weighted_cross_entropy + soft_dice"},
        )
        outputs, annotated = torch.randn(1, 2, 8, 16), torch.ones(1, 1, 8, 16)
        targets = torch.from_numpy(system.draw_targets(self.labels()))[None]
        found = system.compute_loss(nn.Identity(), outputs, targets, annotated)
        nucleus, touching = ((outputs[:, k : k + 1], targets[:, k : k + 1], annotated) for k in (0, 1))
        assert found["nucleus"].item() == pytest.approx(cross_entropy(*nucleus).item())
        expected = weighted_cross_entropy(*touching) + soft_dice(*touching)
        assert found["touching"].item() == pytest.approx(expected.item())

    @pytest.mark.parametrize("masks", [*MASK_LOSSES, "cross_entropy+soft_dice"])
    @pytest.mark.parametrize("truth", [0, 1])
    @pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
    def test_images_without_nuclei_or_full_of_one(self, masks: str, truth: int, logit: float) -> None:
        system = MultiheadUNet(SMALL, loss=LossConfig(masks=masks))
        targets = torch.from_numpy(system.draw_targets(np.full((8, 8), truth, np.int32)))[None]
        outputs = torch.full((1, 6, 8, 8), logit, requires_grad=True)
        loss = system.compute_loss(nn.Identity(), outputs, targets, torch.ones(1, 1, 8, 8))["loss"]
        loss.backward()
        assert loss.isfinite()
        assert outputs.grad is not None
        assert outputs.grad.isfinite().all()


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"decoder": "unet"}, "decoder must be one of additive, concat, inception_se, got 'unet'"),
            ({"activation": "gelu"}, "activation must be one of relu, elu, selu"),
            ({"padding": "reflect"}, "padding must be one of zero, mirror"),
            ({"initialisation": "glorot"}, "initialisation must be one of auto, pytorch, xavier, he, lecun"),
            ({"heads": ("nucleus", "border")}, "each of heads must be one of nucleus, .*, got 'border'"),
            ({"heads": ("shrunk",)}, "heads must hold nucleus"),
            ({"heads": ("nucleus", "nucleus")}, "each head once"),
            ({"reduction": 0}, "reduction must be at least 1"),
            ({"widths": (6,)}, "as many positive widths"),
            ({"widths": (6, 4), "decoder": "inception_se"}, "multiples of 4, got"),
            ({"weights": "imagenet"}, "no weights for the plain encoder; set weights = 'none'"),
            (
                {"encoder_widths": (4, 6)},
                r"needs encoder_widths of 3 .* such as \[64, 128, 256\]; got \[4, 6\]",
            ),
            ({"encoder_widths": (4, 6, 0)}, "positive numbers"),
            ({"encoder": "resnet10t"}, "resnet10t has widths of its own"),
            ({"convolutions": (2, 1)}, "convolutions are for the additive decoder; the concat decoder"),
            (
                {"decoder": "additive", "convolutions": (2,)},
                r"as many positive numbers as widths, 2, got \[2\]",
            ),
            ({"decoder": "additive", "convolutions": (2, 0)}, "positive numbers as widths"),
        ],
    )
    def test_networks(self, changes: dict, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            dataclasses.replace(PLAIN, **changes)

    @pytest.mark.parametrize(
        ("loss", "said"),
        [
            ({"masks": "dice"}, "each loss of a mask must be one of .*, got 'dice'"),
            ({"masks": ""}, "got ''"),
            ({"masks": "soft_dice+soft_dice"}, "adds each term once"),
            ({"by_head": {"offset": "soft_dice"}}, "by_head must be one of nucleus, shrunk, touching"),
            ({"by_head": {"nucleus": "l1"}}, "got 'l1'"),
        ],
    )
    def test_losses(self, loss: dict, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            LossConfig(**loss)

    def test_a_loss_for_a_head_that_is_not_there(self) -> None:
        with pytest.raises(UsageError, match="by_head of the loss must be one of nucleus, got 'touching'"):
            MultiheadUNet(
                dataclasses.replace(SMALL, heads=("nucleus",)),
                loss=LossConfig(by_head={"touching": "soft_dice"}),
            )

    @pytest.mark.parametrize(("depth", "widths"), [(4, (8, 8)), (1, ()), (3, (8, 0)), (0, ())])
    def test_widths_that_do_not_fit_the_depth(self, depth: int, widths: tuple[int, ...]) -> None:
        with pytest.raises(UsageError, match="one positive width fewer than its depth"):
            NetworkConfig(depth=depth, widths=widths)
