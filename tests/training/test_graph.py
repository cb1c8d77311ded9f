"""Folding padding into convolutions: the same answer from a lighter graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

torch = pytest.importorskip("torch", reason="the training half is not installed")

from torch import nn  # noqa: E402

from nuxel.training.graph import fold_padding, halve_weights, name_sizes  # noqa: E402


class _Padded(nn.Module):
    def __init__(self, padding: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.padding, self.value = padding, value
        self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=(1, 0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.pad(image, self.padding, value=self.value))


def _exported(module: nn.Module, folder: Path) -> onnx.ModelProto:
    path = folder / "graph.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own; see nuxel.training.export
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 2, 8, 8),),
            path,
            input_names=["image"],
            dynamic_axes={"image": {2: "height", 3: "width"}},
            opset_version=17,
            dynamo=False,
        )
    return onnx.load(path)


def _answer(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


@pytest.mark.parametrize("padding", [(0, 1, 0, 1), (1, 2, 1, 2), (2, 0, 0, 3)])
def test_asymmetric_padding_becomes_the_convolutions_own(padding: tuple[int, ...], tmp_path: Path) -> None:
    model = _exported(_Padded(padding), tmp_path)
    image = np.random.default_rng(0).normal(size=(1, 2, 10, 14)).astype(np.float32)
    before = _answer(model, image)
    folded = fold_padding(model)
    assert "Pad" not in {node.op_type for node in folded.graph.node}
    np.testing.assert_array_equal(_answer(folded, image), before)


def test_a_graph_without_padding_nodes_stays(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU())
    model = _exported(module, tmp_path)
    kinds = [node.op_type for node in model.graph.node]
    assert [node.op_type for node in fold_padding(model).graph.node] == kinds


def test_padding_with_another_value_than_zero_is_left_alone(tmp_path: Path) -> None:
    model = _exported(_Padded((0, 1, 0, 1), value=2.0), tmp_path)
    image = np.ones((1, 2, 8, 8), np.float32)
    before = _answer(model, image)
    folded = fold_padding(model)
    assert "Pad" in {node.op_type for node in folded.graph.node}
    np.testing.assert_array_equal(_answer(folded, image), before)


def test_sizes_are_named_by_their_share_of_the_image() -> None:
    """A global map, or one of a size that does not follow the image's, gets no name."""
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("AveragePool", ["image"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["half"], ["whole"]),
        node("Mul", ["half", "whole"], ["scaled"]),
        node("DepthToSpace", ["wide"], ["maps"], blocksize=2),
        node("Concat", ["scaled", "scaled", "scaled", "scaled"], ["wide"], axis=1),
    ]
    nodes[3], nodes[4] = nodes[4], nodes[3]
    graph = helper.make_graph(
        nodes,
        "sizes",
        [value("image", onnx.TensorProto.FLOAT, [1, 3, "height", "width"])],
        [value("maps", onnx.TensorProto.FLOAT, [1, 3, "height", "width"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    named = {
        info.name: [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in name_sizes(model, 4).graph.value_info
    }
    assert named == {
        "half": [1, 3, "height_2", "width_2"],
        "scaled": [1, 3, "height_2", "width_2"],
        "wide": [1, 12, "height_2", "width_2"],
    }


def test_what_only_a_branch_reads_stays() -> None:
    """Detection networks have branches and loops, which read from the graph around them."""

    def branch(name: str, source: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, 1, [1, 1, 2, 2])
        return helper.make_graph([helper.make_node("Identity", [source], [name])], name, [], [output])

    nodes = [
        helper.make_node("Mul", ["image", "image"], ["square"]),
        helper.make_node("Add", ["image", "image"], ["double"]),
        helper.make_node(
            "If",
            ["yes"],
            ["answer"],
            then_branch=branch("one", "square"),
            else_branch=branch("two", "double"),
        ),
        helper.make_node("Sub", ["image", "image"], ["unread"]),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("image", 1, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("answer", 1, [1, 1, 2, 2])],
        [onnx.numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folded = fold_padding(model)
    assert [node.op_type for node in folded.graph.node] == ["Mul", "Add", "If"]
    image = np.full((1, 1, 2, 2), 3, np.float32)
    np.testing.assert_array_equal(_answer(folded, image), image**2)


class _PaddedOnce(nn.Module):
    """One padded tensor, read by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(image, (0, 1, 0, 1))
        return self.first(padded) + self.second(padded)


class _PaddedChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.pad(image, (0, 1, 0, 1, 0, 1)))


@pytest.mark.parametrize("kind", [_PaddedOnce, _PaddedChannels])
def test_padding_that_a_convolution_cannot_do_alone_is_left(kind: type[nn.Module], tmp_path: Path) -> None:
    model = _exported(kind(), tmp_path)
    image = np.random.default_rng(0).normal(size=(1, 2, 10, 14)).astype(np.float32)
    before = _answer(model, image)
    folded = fold_padding(model)
    assert "Pad" in {node.op_type for node in folded.graph.node}
    np.testing.assert_array_equal(_answer(folded, image), before)


def test_half_weights_are_none_that_would_become_infinite(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(2, 64, 3, padding=1), nn.Conv2d(64, 2, 3, padding=1))
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = 1e6
    model = _exported(module, tmp_path)
    image = np.random.default_rng(0).normal(size=(1, 2, 10, 14)).astype(np.float32)
    before = _answer(model, image)
    halve_weights(model)
    kinds = [one.data_type for one in model.graph.initializer if np.prod(one.dims) >= 1024]
    assert sorted(kinds) == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]
    np.testing.assert_allclose(_answer(model, image), before, rtol=1e-3, atol=1e-3 * np.abs(before).max())
