import copy
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from nuxel.errors import NuxelError
from nuxel.nn.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder, load_imagenet_weights
from nuxel.nn.pyramid_backbone import PyramidBackbone

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def resnet() -> torchvision.models.ResNet:
    """torchvision's own classifier, with random weights and statistics."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2.0)
    return model.eval()


@pytest.fixture(scope="module")
def weights(resnet: torchvision.models.ResNet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its state dict in a file."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def published(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> list[str]:
    """Let every download answer with ``state``; the names of the weights that were asked for."""
    asked: list[str] = []

    def answer(self: WeightsEnum, **_: object) -> dict[str, Tensor]:
        asked.append(str(self))
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", answer)
    return asked


class TestShapes:
    @pytest.mark.parametrize(
        ("name", "channels"), [("resnet18", [64, 128, 256, 512]), (LITE0, [24, 40, 112, 320])]
    )
    def test_four_maps_from_stride_4(self, name: str, channels: list[int]) -> None:
        backbone = PyramidBackbone(name).eval()
        assert (backbone.channels, backbone.strides) == (channels, [4, 8, 16, 32])
        for height, width in ((64, 64), (96, 64), (96, 96)):
            with torch.no_grad():
                maps = backbone(torch.rand(1, 3, height, width))
            assert [tuple(m.shape) for m in maps] == [
                (1, count, height // stride, width // stride)
                for count, stride in zip(channels, (4, 8, 16, 32), strict=True)
            ]

    @pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnext101_64x4d"])
    def test_the_deeper_ones_of_torchvision(self, name: str) -> None:
        with torch.device("meta"):
            body, backbone = torchvision.models.get_model(name), PyramidBackbone(name)
        assert backbone.channels == [256, 512, 1024, 2048]
        own = {key: value.shape for key, value in backbone.body.state_dict().items()}
        assert own == {k: v.shape for k, v in body.state_dict().items() if not k.startswith("fc.")}

    def test_what_no_map_needs_is_left_out(self) -> None:
        backbone = PyramidBackbone("resnet18")
        sum(level.sum() for level in backbone(torch.rand(2, 3, 64, 64))).backward()
        assert [name for name, p in backbone.named_parameters() if p.grad is None] == []

    def test_its_own_normalisation_is_not_saved(self) -> None:
        assert {key.partition(".")[0] for key in PyramidBackbone("resnet18").state_dict()} == {"body"}

    def test_is_ready_to_train(self) -> None:
        assert all(part.training for part in PyramidBackbone("resnet18").modules())


class TestWeights:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_torchvisions_own_file(
        self, suffix: str, resnet: torchvision.models.ResNet, images: Tensor, tmp_path: Path
    ) -> None:
        path = tmp_path / f"resnet{suffix}"
        state = resnet.state_dict()
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        backbone = PyramidBackbone("resnet18", str(path)).eval()
        theirs = create_feature_extractor(resnet, [f"layer{number}" for number in range(1, 5)])
        with torch.no_grad():
            found, wanted = backbone(images), theirs(normalised(images))
        for mine, other in zip(found, wanted.values(), strict=True):
            assert (mine - other).abs().max() < 1e-5

    def test_a_mask_rcnns_backbone(self, images: Tensor, tmp_path: Path) -> None:
        """Frozen normalisation, prefixed keys, and the other parts beside them."""
        torch.manual_seed(1)
        detector = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 2).eval()
        path = tmp_path / "mask_rcnn.pth"
        torch.save(detector.state_dict(), path)
        backbone = PyramidBackbone("resnet18", str(path), frozen_norm=True).eval()
        with torch.no_grad():
            found, wanted = backbone(images), detector.backbone.body(normalised(images))
        for mine, other in zip(found, wanted.values(), strict=True):
            assert torch.equal(mine, other)

    @pytest.mark.parametrize(
        ("name", "weights", "asked"),
        [
            ("resnet18", "imagenet", "ResNet18_Weights.IMAGENET1K_V1"),
            ("resnet50", "imagenet", "ResNet50_Weights.IMAGENET1K_V1"),
            ("resnet50", "coco", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"),
        ],
    )
    def test_what_torchvision_publishes(
        self, name: str, weights: str, asked: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = torchvision.models.get_model(name).state_dict()
        keys = {f"backbone.body.{key}" if weights == "coco" else key: v for key, v in state.items()}
        found = published(monkeypatch, keys)
        own = PyramidBackbone(name, weights).body.state_dict()
        assert found == [asked]
        assert all(torch.equal(value, state[key]) for key, value in own.items())

    def test_published_weights_that_cannot_be_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise URLError("no network")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
        with pytest.raises(
            NuxelError, match=r"ResNet18_Weights.IMAGENET1K_V1 cannot be fetched .*no network.*; give a local"
        ):
            PyramidBackbone("resnet18", "imagenet")

    def test_the_bundled_weights_of_lite0(self, images: Tensor) -> None:
        encoder = Encoder(LITE0, 5).eval()
        load_imagenet_weights(encoder, LITE0)
        backbone = PyramidBackbone(LITE0, "imagenet").eval()
        with torch.no_grad():
            found, wanted = backbone(images), encoder(normalised(images))[1:]
        assert all(torch.equal(mine, other) for mine, other in zip(found, wanted, strict=True))

    def test_a_local_file_of_timms(self, tmp_path: Path) -> None:
        state = Encoder(LITE0, 5).backbone.state_dict()
        torch.save(state, tmp_path / "lite0.pth")
        backbone = PyramidBackbone(LITE0, str(tmp_path / "lite0.pth"))
        assert isinstance(backbone.body, Encoder)
        own = backbone.body.backbone.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in own.items())

    def test_images_are_normalised_as_the_weights_expect(self) -> None:
        backbone = PyramidBackbone("legacy_xception")
        assert (backbone.mean.flatten().tolist(), backbone.std.flatten().tolist()) == ([0.5] * 3, [0.5] * 3)


class TestFrozenNorm:
    @pytest.mark.parametrize("name", ["resnet18", LITE0])
    def test_the_answer_is_the_same_and_no_longer_moves(
        self, name: str, weights: str, images: Tensor
    ) -> None:
        source = weights if name == "resnet18" else "imagenet"
        running = PyramidBackbone(name, source).eval()
        frozen = PyramidBackbone(name, source, frozen_norm=True)
        kept = {key: value.clone() for key, value in frozen.state_dict().items()}
        with torch.no_grad():
            found, wanted = frozen.train()(images), running(images)
        for mine, other in zip(found, wanted, strict=True):
            assert (mine - other).abs().max() < 1e-4 * other.abs().max()
        assert not any(isinstance(part, nn.BatchNorm2d) for part in frozen.modules())
        assert all(torch.equal(value, kept[key]) for key, value in frozen.state_dict().items())

    def test_is_torchvisions(self, weights: str) -> None:
        backbone = PyramidBackbone("resnet18", weights, frozen_norm=True)
        assert sum(isinstance(part, FrozenBatchNorm2d) for part in backbone.modules()) == 20
        assert not any("bn" in name for name, _ in backbone.named_parameters())

    def test_a_checkpoint_brings_the_statistics(self, weights: str, images: Tensor) -> None:
        trained = PyramidBackbone("resnet18", weights, frozen_norm=True).eval()
        loaded = PyramidBackbone("resnet18", frozen_norm=True).eval()
        loaded.load_state_dict(trained.state_dict())
        with torch.no_grad():
            assert torch.equal(loaded(images)[-1], trained(images)[-1])


class TestStages:
    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize(
        ("name", "stem", "top"),
        [
            ("resnet18", "conv1 bn1 layer1 layer2", "layer3 layer4"),
            (LITE0, "conv_stem bn1 blocks.0 blocks.1 blocks.2", "blocks.3 blocks.4 blocks.5 blocks.6"),
            (
                "legacy_xception",
                "conv1 bn1 conv2 bn2 block1 block2",
                " ".join(f"block{number}" for number in range(3, 13)) + " conv3 bn3 conv4 bn4",
            ),
        ],
    )
    def test_every_weight_is_in_one_stage(self, name: str, stem: str, top: str, frozen: bool) -> None:
        with torch.device("meta"):
            backbone = PyramidBackbone(name, frozen_norm=frozen)
        prefix = "body." if name == "resnet18" else "body.backbone."
        names = {id(p): key.removeprefix(prefix) for key, p in backbone.named_parameters()}
        stages = {
            stage: [names.pop(id(p)) for module in modules for p in module.parameters()]
            for stage, modules in backbone.stages().items()
        }
        assert names == {}
        assert list(stages) == ["stem", "top"]
        for found, parts in zip(stages.values(), (stem.split(), top.split()), strict=True):
            wanted = {part for part in parts if not (frozen and part.startswith("bn"))}
            depth = 2 if name == LITE0 else 1
            assert {
                ".".join(key.split(".")[: depth if key.startswith("blocks") else 1]) for key in found
            } == wanted

    def test_a_copys_stages_are_the_copys_own(self) -> None:
        twin = copy.deepcopy(PyramidBackbone("resnet18"))
        staged = {p for modules in twin.stages().values() for module in modules for p in module.parameters()}
        assert staged == set(twin.parameters())

    def test_a_stem_held_still_keeps_c3_and_lets_c5_learn(self, weights: str, images: Tensor) -> None:
        backbone = PyramidBackbone("resnet18", weights)
        for module in backbone.stages()["stem"]:
            module.requires_grad_(False)
            module.eval()
        with torch.no_grad():
            before = backbone(images)
        optimiser = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.01)
        backbone(images)[-1].mean().backward()
        optimiser.step()
        with torch.no_grad():
            after = backbone(images)
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, False]


class TestErrors:
    def test_a_misspelt_name_suggests_the_nearest(self) -> None:
        with pytest.raises(NuxelError, match=r"'resnet_50'; did you mean .*resnet50"):
            PyramidBackbone("resnet_50")

    def test_keys_that_do_not_fit_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        torch.save({"bn1.bias": torch.zeros(64), "conv1.weight": torch.zeros(1)}, path)
        with pytest.raises(
            NuxelError, match="the weights do not fit resnet18: 99 keys are missing"
        ) as caught:
            PyramidBackbone("resnet18", str(path))
        assert str(caught.value).startswith(str(path))
        assert "first ['bn1.running_mean', 'bn1.running_var', 'bn1.weight']" in str(caught.value)
        assert str(caught.value).endswith("the first of its own are ['bn1.bias', 'conv1.weight']")

    def test_a_deeper_resnets_weights_do_not_pass_for_a_shallower_ones(self, tmp_path: Path) -> None:
        path = tmp_path / "resnet34.pth"
        torch.save(torchvision.models.resnet34().state_dict(), path)
        with pytest.raises(
            NuxelError, match=r"do not fit resnet18: .* left over .* first \['layer1.2.bn1.bias"
        ):
            PyramidBackbone("resnet18", str(path))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(NuxelError, match="no such weights file"):
            PyramidBackbone("resnet18", str(tmp_path / "absent.pth"))

    @pytest.mark.parametrize("name", ["resnet18", LITE0])
    def test_coco_weights_are_for_one_backbone(self, name: str) -> None:
        with pytest.raises(NuxelError, match=f"COCO weights for resnet50, and none for {name}"):
            PyramidBackbone(name, "coco")
