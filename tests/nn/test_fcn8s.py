from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VGG, VGG16_Weights, vgg16

from nuxel.errors import NuxelError, UsageError
from nuxel.nn.fcn8s import FCN8s

State = dict[str, Tensor]


def make_small(**options: float) -> FCN8s:
    torch.manual_seed(0)
    return FCN8s(width=1 / 16, fc_channels=12, **options)


def set_apart(network: FCN8s) -> None:
    """Give all weights and biases random values, those that begin as zero or as bilinear too."""
    for values in network.parameters():
        nn.init.normal_(values, std=max(2 / values[0].numel(), 0.02) ** 0.5)


def save(state: State, path: Path) -> str:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


@pytest.fixture(scope="module")
def torchvisions() -> VGG:
    """torchvision's classifier without memory."""
    with torch.device("meta"):
        return vgg16(init_weights=False)


@pytest.fixture(scope="module")
def published(torchvisions: VGG) -> State:
    """Weights for all of it, in little memory: each is the one before it in the next row."""
    torch.manual_seed(1)
    state = {}
    for key, value in torchvisions.state_dict().items():
        row = value[0].numel()
        numbers = torch.randn(len(value) + row - 1) * (2 / row) ** 0.5
        state[key] = (
            numbers.as_strided((len(value), row), (1, 1)).unflatten(1, (*value.shape[1:], 1)).squeeze(-1)
        )
        assert state[key].shape == value.shape
    return state


@pytest.fixture(scope="module")
def features(published: State) -> State:
    """The same without the classifier."""
    return {key: value for key, value in published.items() if key.startswith("features.")}


@pytest.fixture(scope="module")
def filled(torchvisions: VGG, published: State) -> VGG:
    """torchvision's classifier with these weights."""
    torchvisions.load_state_dict(published, assign=True)
    return torchvisions.eval()


@pytest.fixture(scope="module")
def loaded(published: State, tmp_path_factory: pytest.TempPathFactory) -> FCN8s:
    """The whole network, with these weights from a file."""
    path = tmp_path_factory.mktemp("vgg16") / "torchvision.pth"
    with pytest.MonkeyPatch.context() as patch:
        # To draw 134 million numbers, twice, that the file's replace would take most of the time.
        patch.setattr(nn.init, "kaiming_uniform_", lambda *_, **__: None)
        patch.setattr("nuxel.nn.fcn8s.initialise", lambda *_: None)
        return FCN8s(weights=save(published, path)).eval()


class TestNetwork:
    @pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 32)])
    def test_the_size_is_kept(self, height: int, width: int) -> None:
        assert FCN8s.stride == 32
        assert make_small()(torch.rand(2, 3, height, width)).shape == (2, 1, height, width)

    def test_count(self) -> None:
        with torch.device("meta"):
            network = FCN8s()
        fc6, fc7 = 512 * 7 * 7 * 4096 + 4096, 4096 * 4096 + 4096
        scores = (4096 + 1) + (512 + 1) + (256 + 1)
        deconvolutions = 4 * 4 + 4 * 4 + 16 * 16
        count = sum(values.numel() for values in network.parameters())
        assert count == 14_714_688 + fc6 + fc7 + scores + deconvolutions == 134_265_699

    def test_the_encoder_is_torchvisions(self, torchvisions: VGG) -> None:
        network = FCN8s(fc_channels=1)
        assert repr(network.encoder) == repr(torchvisions.features)
        assert network.encoder.state_dict().keys() == torchvisions.features.state_dict().keys()

    @pytest.mark.parametrize(
        ("width", "channels"), [(0.5, [32, 64, 128, 256]), (0.03, [2, 4, 8, 15]), (1e-9, [1, 1, 1, 1])]
    )
    def test_width_multiplies_every_layer(self, width: float, channels: list[int]) -> None:
        network = FCN8s(width=width, fc_channels=3)
        found = [layer.out_channels for layer in network.encoder if isinstance(layer, nn.Conv2d)]
        first, second, third, fourth = channels
        assert found == [first] * 2 + [second] * 2 + [third] * 3 + [fourth] * 6
        assert [layer.out_channels for layer in (network.fc[0], network.fc[3])] == [3, 3]
        assert network(torch.rand(1, 3, 32, 64)).shape == (1, 1, 32, 64)

    def test_is_its_equation(self) -> None:
        network = make_small().eval()
        set_apart(network)
        images = torch.rand(2, 3, 64, 96)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (images - mean[:, None, None]) / std[:, None, None]
        own = dict(network.named_parameters())

        def conv(x: Tensor, name: str) -> Tensor:
            weight = own[f"{name}.weight"]
            return functional.conv2d(x, weight, own[f"{name}.bias"], padding=weight.shape[2] // 2)

        pools = []
        for block in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            for layer in block:
                x = conv(x, f"encoder.{layer}").relu()
            x = functional.max_pool2d(x, 2)
            pools.append(x)
        fc = conv(conv(pools[4], "fc.0").relu(), "fc.3").relu()
        up = functional.conv_transpose2d
        at16 = up(conv(fc, "score_fc"), own["up_fc.weight"], stride=2, padding=1) + conv(
            pools[3], "score_pool4"
        )
        at8 = up(at16, own["up_pool4.weight"], stride=2, padding=1) + conv(pools[2], "score_pool3")
        expected = up(at8, own["up_pool3.weight"], stride=8, padding=4)
        assert expected.std() > 0.1
        torch.testing.assert_close(network(images), expected)

    def test_mean_and_spread_are_not_saved(self) -> None:
        network = make_small()
        assert {"mean", "std"} == {name for name, _ in network.named_buffers()}
        assert not {"mean", "std"} & network.state_dict().keys()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"width": 0}, "width .* must be positive, got 0"),
            ({"width": float("nan")}, "width .* must be positive, got nan"),
            ({"width": float("inf")}, "width .* must be positive, got inf"),
            ({"fc_channels": 0}, "fc_channels must be at least 1, got 0"),
            ({"dropout": 1.0}, "dropout is a share .* got 1.0"),
            ({"dropout": -0.1}, "dropout is a share .* got -0.1"),
            ({"width": 0.5, "weights": "imagenet"}, "width 1 only, got width 0.5; set weights = 'none'"),
        ],
    )
    def test_what_cannot_be_built(self, given, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            FCN8s(**given)


class TestBeginning:
    @pytest.mark.parametrize(("name", "times"), [("up_fc", 2), ("up_pool4", 2), ("up_pool3", 8)])
    def test_deconvolutions_are_bilinear(self, name: str, times: int) -> None:
        scores = torch.randn(2, 1, 5, 7)
        enlarged = getattr(make_small(), name)(scores)
        expected = functional.interpolate(scores, scale_factor=times, mode="bilinear", align_corners=False)
        assert enlarged.shape == expected.shape
        half = times // 2  # nearer to the edge, torch repeats it, and the deconvolution fades to 0
        inner = (..., slice(half, -half), slice(half, -half))
        torch.testing.assert_close(enlarged[inner], expected[inner])
        zeros = functional.pad(scores, (1, 1, 1, 1))
        beyond = functional.interpolate(zeros, scale_factor=times, mode="bilinear", align_corners=False)
        torch.testing.assert_close(enlarged, beyond[..., times:-times, times:-times])

    def test_the_prediction_is_that_of_fc7_alone(self) -> None:
        network = make_small().eval()
        images = torch.rand(1, 3, 64, 64)
        before = network(images)
        deep = network.score_fc(network.fc(network.encoder((images - network.mean) / network.std)))
        assert before.std() > 0
        torch.testing.assert_close(before, network.up_pool3(network.up_pool4(network.up_fc(deep))))

    def test_every_weight_learns_at_once(self) -> None:
        network = make_small(dropout=0)
        network(torch.rand(1, 3, 64, 64)).square().sum().backward()
        idle = [name for name, values in network.named_parameters() if not values.grad.abs().sum() > 0]
        assert idle == []

    @pytest.mark.parametrize(
        ("without", "least", "most"), [(["score_fc"], 100, 140), (["score_fc", "score_pool4"], 44, 60)]
    )
    def test_skips_bring_what_is_near(self, without: list[str], least: int, most: int) -> None:
        network = make_small().eval()
        set_apart(network)
        for name in without:
            nn.init.zeros_(getattr(network, name).weight)
        images = torch.rand(1, 3, 192, 192, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(images)[0, 0, 96, 96], images)
        seen = gradient.abs().sum((0, 1)).nonzero()
        # A pixel of pool4 sees 100 pixels, of pool3 44; some neighbours' come with enlarging. fc7 sees 404.
        assert least - 20 < seen[:, 0].max() - seen[:, 0].min() < most

    def test_convolutions_are_as_he_et_al(self) -> None:
        torch.manual_seed(0)
        network = FCN8s(width=0.5, fc_channels=256)
        convs = [
            layer
            for layer in (*network.encoder, *network.fc, network.score_fc)
            if isinstance(layer, nn.Conv2d)
        ]
        assert len(convs) == 16
        for layer in convs:
            spread = (2 / layer.weight[0].numel()) ** 0.5
            assert layer.weight.std().item() == pytest.approx(spread, rel=4 / layer.weight.numel() ** 0.5)
            assert not layer.bias.any()

    def test_the_same_seed_is_the_same_network(self) -> None:
        one, other = make_small().state_dict(), make_small().state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one)


class TestDropout:
    def test_in_training_only(self) -> None:
        network, images = make_small(), torch.rand(1, 3, 64, 64)
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))

    def test_none(self) -> None:
        network, images = make_small(dropout=0), torch.rand(1, 3, 64, 64)
        assert torch.equal(network(images), network.eval()(images))

    def test_of_both_layers(self) -> None:
        shares = [layer.p for layer in make_small(dropout=0.3).modules() if isinstance(layer, nn.Dropout)]
        assert shares == [0.3, 0.3]


class TestWeights:
    def test_every_tensor_is_the_published_one(self, loaded: FCN8s, published: State) -> None:
        own = loaded.encoder.state_dict()
        assert len(own) == 26
        assert all(torch.equal(value, published[f"features.{key}"]) for key, value in own.items())
        for key, value in loaded.fc.state_dict().items():
            given = published[f"classifier.{key}"]
            assert torch.equal(value.view(given.shape), given), key

    def test_features_equal_torchvision(self, loaded: FCN8s, filled: VGG) -> None:
        images = torch.randn(1, 3, 32, 64)
        with torch.no_grad():
            expected = filled.features(images)
            assert expected.std() > 0.01
            assert torch.equal(loaded.encoder(images), expected)

    def test_in_the_middle_of_seven_by_seven_fc7_equals_torchvision(self, loaded: FCN8s, filled: VGG) -> None:
        pool5 = torch.rand(1, 512, 7, 7)
        with torch.no_grad():
            expected = filled.classifier[:6](pool5.flatten(1))
            assert expected.std() > 0.01
            torch.testing.assert_close(loaded.fc(pool5)[:, :, 3, 3], expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", ["features.pth", "features.safetensors", "whole.pth"])
    def test_without_a_classifier_that_fits_fc6_and_fc7_begin_from_scratch(
        self, features: State, published: State, tmp_path: Path, name: str
    ) -> None:
        given = (
            published if name == "whole.pth" else {key: value.contiguous() for key, value in features.items()}
        )
        path = save(given, tmp_path / name)
        torch.manual_seed(5)
        network = FCN8s(fc_channels=8, weights=path)
        torch.manual_seed(5)
        scratch = FCN8s(fc_channels=8).state_dict()
        for key, value in network.state_dict().items():
            place, _, rest = key.partition(".")
            expected = features[f"features.{rest}"] if place == "encoder" else scratch[key]
            assert torch.equal(value, expected), key

    def test_weights_learn(self, features: State, tmp_path: Path) -> None:
        network = FCN8s(fc_channels=1, weights=save(features, tmp_path / "vgg.pth"))
        assert all(values.requires_grad for values in network.parameters())

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("features.28.bias", None, r"1 keys missing, .* first \['features.28.bias'\]"),
            ("features.0.weight", torch.zeros(64, 3, 5, 5), r"first \['features.0.weight'\]"),
            ("features.0.weight", torch.zeros(64 * 27), r"first \['features.0.weight'\]"),
            ("features.2.bias", torch.tensor([0.0] * 63 + [float("nan")]), r"first \['features.2.bias'\]"),
            ("features.2.bias", torch.tensor([float("inf")] + [0.0] * 63), r"first \['features.2.bias'\]"),
            ("features.2.bias", torch.tensor(0.0), r"first \['features.2.bias'\]"),
        ],
    )
    def test_weights_that_do_not_fit(
        self, features: State, tmp_path: Path, key: str, value: Tensor | None, message: str
    ) -> None:
        state = {**features, key: value}
        if value is None:
            del state[key]
        path = save(state, tmp_path / "other.pth")
        with pytest.raises(NuxelError, match=message) as raised:
            FCN8s(fc_channels=1, weights=path)
        assert str(raised.value).startswith(f"{path}: ")

    def test_weights_of_another_network(self, tmp_path: Path) -> None:
        path = save({"conv1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
        first = r"26 keys missing.*\['features.0.weight', 'features.0.bias', 'features.2.weight'\]"
        with pytest.raises(NuxelError, match=first + r".* its own are \['conv1.weight'\]"):
            FCN8s(fc_channels=1, weights=path)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(NuxelError, match="no such weights file"):
            FCN8s(fc_channels=1, weights=str(tmp_path / "none.pth"))


class TestDownload:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """torchvision's folder of downloads, empty, and no network."""

        def refuse(*_: object, **__: object) -> None:
            raise URLError("no route to host")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.urlopen", refuse)
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        return folder

    def test_imagenet_is_what_torchvision_publishes_for_our_mean_and_spread(
        self, cache: Path, features: State
    ) -> None:
        weights = VGG16_Weights.IMAGENET1K_V1
        save(features, cache / Path(weights.url).name)
        network = FCN8s(fc_channels=1, weights="imagenet")
        own = network.encoder.state_dict()
        assert all(torch.equal(value, features[f"features.{key}"]) for key, value in own.items())
        assert network.mean.flatten().tolist() == pytest.approx(weights.transforms().mean)
        assert network.std.flatten().tolist() == pytest.approx(weights.transforms().std)

    def test_no_network(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(
            NuxelError, match=r"^https://.*cannot be downloaded \(.*no route to host.*local file"
        ):
            FCN8s(fc_channels=1, weights="imagenet")
        assert capsys.readouterr().out == ""

    def test_a_damaged_download(self, cache: Path) -> None:
        (cache / Path(VGG16_Weights.IMAGENET1K_V1.url).name).write_bytes(b"half of it")
        with pytest.raises(NuxelError, match="cannot be downloaded"):
            FCN8s(fc_channels=1, weights="imagenet")
