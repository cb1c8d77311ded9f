"""Each variant against its equation, the plain pyramid against torchvision's."""

import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from nuxel.errors import UsageError
from nuxel.nn.attention_fpn import VARIANTS, AttentionFPN

CHANNELS = [5, 6, 7]
WIDTH = 4
GATED = [variant for variant in VARIANTS if variant != "vanilla"]
LEARNED = [variant for variant in GATED if variant != "no_gamma"]


def maps(height: int = 2, width: int = 3, batch: int = 2, channels: list[int] = CHANNELS) -> list[Tensor]:
    """Random maps, fine to coarse; the coarsest has ``height`` x ``width`` pixels."""
    last = len(channels) - 1
    return [
        torch.randn(batch, count, height << (last - k), width << (last - k), dtype=torch.float64)
        for k, count in enumerate(channels)
    ]


def drawn(variant: str, **options: object) -> AttentionFPN:
    """A pyramid all of whose weights are random, also those that start at zero or as the identity."""
    fpn = AttentionFPN(CHANNELS, WIDTH, variant, **options).double()  # type: ignore[arg-type]
    for parameter in fpn.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fpn


def conv1(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1 x 1 convolution as a matrix for each pixel."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.kernel_size == (1, 1)
    assert layer.bias is not None
    return torch.einsum("oc,nchw->nohw", layer.weight[:, :, 0, 0], x) + layer.bias.view(1, -1, 1, 1)


def doubled(y: Tensor) -> Tensor:
    """Each pixel four times."""
    return y.repeat_interleave(2, 2).repeat_interleave(2, 3)


def expected(fpn: AttentionFPN, variant: str, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """All levels by the equations, with everything computed at the size of x."""
    merged, alphas = [conv1(fpn.top, inputs[-1])], []
    for block, x in zip(list(fpn.merges)[::-1], inputs[-2::-1], strict=True):
        y = doubled(merged[0])
        lateral = conv1(block.g, x)
        if variant == "vanilla":
            merged.insert(0, lateral + y)
            continue
        gate = block.gate
        theta, phi = conv1(gate.theta, x), conv1(gate.phi, y)
        hidden = torch.cat([theta, phi], 1) if variant == "concat" else theta + phi
        hidden = hidden.clamp(min=0)
        if variant == "non_local":
            hidden = gate.context(hidden)
        alpha = 1 / (1 + torch.exp(-conv1(gate.psi, hidden)))
        gamma = 1.0 if variant == "no_gamma" else block.gamma
        alphas.insert(0, alpha)
        merged.insert(0, gamma * alpha * lateral + lateral + conv1(block.q, y))
    smooth = [functional.conv2d(z, h.weight, h.bias, padding=1) for z, h in zip(merged, fpn.h, strict=False)]
    return smooth, alphas


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_is_its_equations(variant: str, levels: int) -> None:
    torch.manual_seed(0)
    fpn, inputs = drawn(variant, levels=levels), maps()
    found, alphas = fpn(inputs)
    wanted, wanted_alphas = expected(fpn, variant, inputs)
    assert len(found) == levels
    assert len(alphas) == (0 if variant == "vanilla" else 2)
    for mine, other in zip(found + alphas, wanted + wanted_alphas, strict=True):
        assert mine.shape == other.shape
        assert torch.allclose(mine, other, atol=1e-10)


@settings(max_examples=20)
@given(
    variant=st.sampled_from(GATED),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_alpha_lies_between_0_and_1_and_has_the_size_of_its_level(
    variant: str, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    pyramid, alphas = drawn(variant)(maps(height, width))
    channels = 1 if variant == "pixel" else WIDTH
    for k, alpha in enumerate(alphas):
        assert alpha.shape == (2, channels, height << (2 - k), width << (2 - k))
        assert alpha.min() >= 0  # a sigmoid, which rounds to its ends far from 0
        assert alpha.max() <= 1
    assert [level.shape[2:] for level in pyramid[:2]] == [alpha.shape[2:] for alpha in alphas]


def test_vanilla_equals_torchvisions_pyramid() -> None:
    theirs = FeaturePyramidNetwork(CHANNELS, WIDTH, LastLevelMaxPool()).double()
    ours = AttentionFPN(CHANNELS, WIDTH, "vanilla", "pool").double()
    for mine, other in zip([*(m.g for m in ours.merges), ours.top], theirs.inner_blocks, strict=True):
        mine.load_state_dict(other[0].state_dict())
    for mine, other in zip(ours.h, theirs.layer_blocks, strict=True):
        mine.load_state_dict(other[0].state_dict())
    inputs = maps(3, 5)
    wanted = theirs(OrderedDict((str(k), x) for k, x in enumerate(inputs))).values()
    for mine, other in zip(ours(inputs)[0], wanted, strict=True):
        assert torch.allclose(mine, other, atol=1e-12)


@pytest.mark.parametrize("variant", LEARNED)
def test_at_gamma_0_with_q_the_identity_it_is_the_plain_pyramid(variant: str) -> None:
    """Which is how a gated pyramid starts."""
    plain, gated = AttentionFPN(CHANNELS, WIDTH, "vanilla"), AttentionFPN(CHANNELS, WIDTH, variant)
    missing, surplus = gated.load_state_dict(plain.state_dict(), strict=False)
    assert surplus == []
    assert all(".gate." in key or ".q." in key or key.endswith(".gamma") for key in missing)
    for merge in gated.merges:
        assert merge.gamma.item() == 0.0
        assert torch.equal(merge.q.weight[:, :, 0, 0], torch.eye(WIDTH))
        assert torch.equal(merge.q.bias, torch.zeros(WIDTH))
    inputs = [x.float() for x in maps()]
    for mine, other in zip(gated(inputs)[0], plain(inputs)[0], strict=True):
        assert (mine - other).abs().max() < 1e-6


def test_the_non_local_gate_starts_as_the_proposed_one() -> None:
    local, other = (AttentionFPN(CHANNELS, WIDTH, variant).double() for variant in ("proposed", "non_local"))
    other.load_state_dict(local.state_dict(), strict=False)
    inputs = maps()
    for mine, wanted in zip(other(inputs)[1], local(inputs)[1], strict=True):
        assert torch.allclose(mine, wanted, atol=1e-12)


@pytest.mark.parametrize(("variant", "everywhere"), [("proposed", False), ("non_local", True)])
def test_only_the_non_local_gate_sees_the_whole_map(variant: str, everywhere: bool) -> None:
    torch.manual_seed(0)
    inputs = maps(4, 4, 1)
    inputs[0].requires_grad_()
    alpha = drawn(variant)(inputs)[1][0]
    (slope,) = torch.autograd.grad(alpha[0, :, 0, 0].sum(), inputs[0])
    seen = slope[0].abs().sum(0) > 0
    assert seen[0, 0]
    assert seen[1:, 1:].any() == everywhere


@pytest.mark.parametrize("variant", LEARNED)
def test_gamma_learns_at_once_and_the_gate_after_one_step(variant: str) -> None:
    torch.manual_seed(0)
    fpn, inputs = AttentionFPN(CHANNELS, 16, variant).double(), maps()
    optimiser = torch.optim.SGD(fpn.parameters(), lr=1e-3)

    def slopes() -> dict[str, float]:
        optimiser.zero_grad()
        sum(level.square().sum() for level in fpn(inputs)[0]).backward()
        return {name: p.grad.abs().max().item() for name, p in fpn.named_parameters() if p.grad is not None}

    first = slopes()
    assert first.keys() == dict(fpn.named_parameters()).keys()
    optimiser.step()
    second = slopes()
    for name in first:
        if ".gate." in name:
            assert first[name] == 0.0, name
            # What is behind a projection that starts at zero learns one step later still.
            assert second[name] > 0.0 or (".context." in name and ".out." not in name), name
        else:
            assert first[name] > 0.0, name


def test_no_gamma_learns_at_once() -> None:
    fpn = AttentionFPN(CHANNELS, 16, "no_gamma").double()
    sum(level.square().sum() for level in fpn(maps())[0]).backward()
    assert not any("gamma" in name for name, _ in fpn.named_parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in fpn.parameters())


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_counts(variant: str, levels: int) -> None:
    n = WIDTH
    gates = {
        "proposed": lambda c: (c + 1) * n + 2 * (n + 1) * n,
        "no_gamma": lambda c: (c + 1) * n + 2 * (n + 1) * n,
        "pixel": lambda c: (c + 1) + (n + 1) + 2,
        "concat": lambda c: (c + 1) * n + (n + 1) * n + (2 * n + 1) * n,
        "non_local": lambda c: (c + 1) * n + 2 * (n + 1) * n + 4 * 64 * n,
    }
    laterals = sum((c + 1) * n for c in CHANNELS)
    smooth = levels * (9 * n + 1) * n
    gated = 0
    if variant != "vanilla":
        scalar = variant != "no_gamma"
        gated = sum((n + 1) * n + scalar + gates[variant](c) for c in CHANNELS[:-1])
    fpn = AttentionFPN(CHANNELS, n, variant, levels=levels)
    assert sum(p.numel() for p in fpn.parameters()) == laterals + smooth + gated


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("levels", [2, 3])
def test_every_parameter_is_used(variant: str, levels: int) -> None:
    fpn = AttentionFPN(CHANNELS, WIDTH, variant, levels=levels).double()
    sum(level.sum() for level in fpn(maps())[0]).backward()
    assert [name for name, p in fpn.named_parameters() if p.grad is None] == []


class TestLevels:
    def test_the_papers_pyramid(self) -> None:
        """C2 to C5 give P2, P3 and P4, each with its gate."""
        inputs = maps(1, 2, 1, [4, 8, 16, 32])
        pyramid, alphas = AttentionFPN([4, 8, 16, 32], 8, levels=3).double()(inputs)
        assert [tuple(p.shape) for p in pyramid] == [(1, 8, 8, 16), (1, 8, 4, 8), (1, 8, 2, 4)]
        assert [tuple(a.shape) for a in alphas] == [tuple(p.shape) for p in pyramid]

    @pytest.mark.parametrize("levels", [2, 3])
    def test_fewer_levels_are_the_first_of_all(self, levels: int) -> None:
        whole = drawn("proposed")
        part = AttentionFPN(CHANNELS, WIDTH, levels=levels).double()
        part.load_state_dict(whole.state_dict(), strict=False)
        inputs = maps()
        for mine, other in zip(part(inputs)[0], whole(inputs)[0][:levels], strict=True):
            assert torch.equal(mine, other)

    @pytest.mark.parametrize("levels", [2, 3])
    def test_pooling_adds_every_second_pixel_of_the_coarsest(self, levels: int) -> None:
        fpn = drawn("pixel", levels=levels, extra="pool")
        pyramid, _ = fpn(maps(3, 5))
        assert len(pyramid) == levels + 1
        assert torch.equal(pyramid[-1], pyramid[-2][:, :, ::2, ::2])

    def test_a_single_map_has_a_single_level(self) -> None:
        fpn = AttentionFPN([3], 2)
        x = torch.randn(1, 3, 4, 5)
        (level,), alphas = fpn([x])
        assert alphas == []
        assert torch.equal(level, fpn.h[0](fpn.top(x)))

    @pytest.mark.parametrize("levels", [0, 4, -1])
    def test_more_or_fewer_than_there_are(self, levels: int) -> None:
        with pytest.raises(UsageError, match=f"on 3 maps has 1 to 3 levels, got {levels}"):
            AttentionFPN(CHANNELS, WIDTH, levels=levels)

    def test_no_map(self) -> None:
        with pytest.raises(UsageError, match="on 0 maps"):
            AttentionFPN([], WIDTH)


def test_an_unknown_variant() -> None:
    with pytest.raises(
        UsageError, match=r"variant of the pyramid must be one of vanilla, .*, got 'residual'"
    ):
        AttentionFPN(CHANNELS, WIDTH, "residual")


def test_an_unknown_extra() -> None:
    with pytest.raises(UsageError, match="extra of the pyramid must be one of none, pool, got 'p6'"):
        AttentionFPN(CHANNELS, WIDTH, extra="p6")


class Whole(nn.Module):
    """A backbone of poolings, the pyramid, and everything that it gives as one tuple."""

    def __init__(self, fpn: AttentionFPN) -> None:
        super().__init__()
        self.fpn = fpn

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        half = functional.avg_pool2d(x, 2)
        pyramid, alphas = self.fpn([x, half, functional.avg_pool2d(half, 2)])
        return (*pyramid, *alphas)


@pytest.mark.parametrize("variant", VARIANTS)
def test_exports(variant: str, tmp_path: Path) -> None:
    fpn = AttentionFPN([3, 3, 3], WIDTH, variant, "pool", levels=2)
    for parameter in fpn.parameters():
        nn.init.normal_(parameter, std=0.5)
    whole, path = Whole(fpn).eval(), tmp_path / "graph.onnx"
    names = ["P2", "P3", "P4", "alpha2", "alpha3"][: 3 if variant == "vanilla" else 5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own; see nuxel.training.export
        torch.onnx.export(
            whole,
            (torch.randn(1, 3, 16, 16),),
            path,
            input_names=["x"],
            output_names=names,
            # Without names of their own, the exporter lets all outputs share one height and one width.
            dynamic_axes={name: {2: f"{name} height", 3: f"{name} width"} for name in ["x", *names]},
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for height, width in ((16, 16), (12, 28), (4, 8)):
        x = torch.randn(1, 3, height, width)
        found = session.run(None, {"x": x.numpy()})
        with torch.no_grad():
            wanted = whole(x)
        for mine, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(mine, other.numpy(), atol=1e-5, rtol=1e-5)
