"""The linear form against the quadratic one that it stands for."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nuxel.errors import UsageError
from nuxel.nn.decomposed_attention import DecomposedSelfAttention


def drawn(channels: int, hidden: int) -> DecomposedSelfAttention:
    """A block that does something: no longer the identity that it starts as."""
    block = DecomposedSelfAttention(channels, hidden).double()
    nn.init.normal_(block.out.weight)
    return block


def attention(block: DecomposedSelfAttention, features: Tensor) -> Tensor:
    """``(C, H, W)`` -> A of N x N, location by location: what the row's location takes from the column's."""
    flat = features.flatten(1)
    keys, queries = block.basis.weight[:, :, 0, 0] @ flat, block.coefficient.weight[:, :, 0, 0] @ flat
    count = flat.shape[1]
    rows = []
    for i in range(count):
        coefficients = queries[:, i].exp() / queries[:, i].exp().sum()
        row = torch.zeros(count, dtype=flat.dtype)
        for coefficient, key in zip(coefficients, keys, strict=True):
            row += coefficient * key.exp() / key.exp().sum()
        rows.append(row)
    return torch.stack(rows)


def quadratic(block: DecomposedSelfAttention, features: Tensor) -> Tensor:
    """``x + W_f (W_v x) A^T`` with A written out."""
    flat = features.flatten(1)
    values = block.value.weight[:, :, 0, 0] @ flat
    return (flat + block.out.weight[:, :, 0, 0] @ values @ attention(block, features).T).view_as(features)


def test_equals_the_quadratic_form() -> None:
    torch.manual_seed(0)
    block, x = drawn(5, 3), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    expected = torch.stack([quadratic(block, features) for features in x])
    assert torch.allclose(block(x), expected, atol=1e-12)
    assert not torch.allclose(expected, x, atol=1e-2)


@settings(max_examples=15)
@given(
    channels=st.integers(1, 5),
    hidden=st.integers(1, 5),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    spread=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_what_each_location_attends_to_has_the_sum_1(
    channels: int, hidden: int, height: int, width: int, spread: float, seed: int
) -> None:
    torch.manual_seed(seed)
    block = drawn(channels, hidden)
    features = spread * torch.randn(channels, height, width, dtype=torch.float64)
    matrix = attention(block, features)
    for i in range(height * width):
        found = block.attention_map(features, [divmod(i, width)]).detach()
        assert found.shape == (height, width)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1.0)
        assert torch.allclose(found.flatten(), matrix[i], atol=1e-12)


def test_values_that_are_the_same_everywhere_come_back_as_they_are() -> None:
    """A weighted mean of equal values is that value; only weights with the sum 1 have this."""
    block = drawn(4, 3)
    with torch.no_grad():
        block.value.weight[:, 1:] = 0
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    x[:, 0] = 1.0
    added = (block.out.weight[:, :, 0, 0] @ block.value.weight[:, 0, 0, 0]).view(1, 4, 1, 1)
    assert torch.allclose(block(x), x + added, atol=1e-12)


def test_a_nucleus_attends_to_the_mean_of_what_its_pixels_attend_to() -> None:
    block, features = drawn(4, 3), torch.randn(4, 6, 5, dtype=torch.float64)
    pixels = [(1, 2), (1, 3), (5, 0)]
    mean = torch.stack([block.attention_map(features, [pixel]) for pixel in pixels]).mean(0)
    assert torch.allclose(block.attention_map(features, pixels), mean, atol=1e-12)


@pytest.mark.parametrize("location", [(-1, 0), (0, -1), (4, 0), (0, 5)])
def test_a_location_outside_the_map(location: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=rf"within the 4 x 5 map, got \({location[0]}, {location[1]}\)"):
        DecomposedSelfAttention(3, 2).attention_map(torch.zeros(3, 4, 5), [(0, 0), location])


def test_no_location() -> None:
    with pytest.raises(UsageError, match="within the 4 x 5 map, got none"):
        DecomposedSelfAttention(3, 2).attention_map(torch.zeros(3, 4, 5), [])


def test_starts_as_the_identity_and_learns_from_there() -> None:
    block, x = DecomposedSelfAttention(6, 4), torch.randn(2, 6, 5, 4)
    assert torch.equal(block(x), x)
    optimiser = torch.optim.SGD(block.parameters(), lr=1.0)
    block(x).square().sum().backward()
    assert block.out.weight.grad is not None
    assert block.out.weight.grad.abs().max() > 0
    optimiser.step()
    optimiser.zero_grad()
    block(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


def test_counts() -> None:
    assert sum(p.numel() for p in DecomposedSelfAttention(256).parameters()) == 4 * 64 * 256
    assert sum(p.numel() for p in DecomposedSelfAttention(10, 3).parameters()) == 4 * 3 * 10


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = result if isinstance(result, tuple | list) else (result,)
        self.elements = max([self.elements, *(t.numel() for t in given if isinstance(t, Tensor))])
        return result


@pytest.mark.parametrize("side", [32, 64])
def test_memory_grows_with_the_pixels_and_not_with_their_square(side: int) -> None:
    block = DecomposedSelfAttention(8, 4)
    features = torch.randn(8, side, side, requires_grad=True)
    with LargestTensor() as both_ways:
        block(features[None]).square().sum().backward()
    assert both_ways.elements == 8 * side * side
    with LargestTensor() as query:
        block.attention_map(features, [(3, 4)])
    assert query.elements <= 8 * side * side


def test_exports(tmp_path: Path) -> None:
    block = drawn(6, 4).float().eval()
    path = tmp_path / "graph.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own; see nuxel.training.export
        torch.onnx.export(
            block,
            (torch.randn(1, 6, 8, 8),),
            path,
            input_names=["x"],
            dynamic_axes={"x": {2: "height", 3: "width"}},
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for height, width in ((8, 8), (5, 12), (1, 3)):
        x = torch.randn(1, 6, height, width)
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, block(x).detach().numpy(), atol=1e-5)
