"""Changes to an exported graph that leave its answer as it is and make it lighter to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator


def fold_padding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let each convolution do the zero padding that a ``Pad`` node does for it alone.

    The tracing exporter writes asymmetric padding as a node of its own, which copies the largest tensors of the
    network; a convolution can pad each side differently by itself.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        pad = producers.get(conv.input[0])
        users = [node for node in graph.node if conv.input[0] in node.input]
        if pad is None or pad.op_type != "Pad" or len(users) != 1:
            continue
        added = _constant(model, pad.input[1], producers)
        if added[[0, 1, 4, 5]].any() or not _pads_with_zeros(model, pad, producers):
            continue
        attribute = next(a for a in conv.attribute if a.name == "pads")
        pads = [own + int(more) for own, more in zip(attribute.ints, added[[2, 3, 6, 7]], strict=True)]
        attribute.CopyFrom(helper.make_attribute("pads", pads))
        conv.input[0] = pad.input[0]
    _drop_unused(graph)
    onnx.checker.check_model(model)
    return model


def _pads_with_zeros(
    model: onnx.ModelProto, pad: onnx.NodeProto, producers: dict[str, onnx.NodeProto]
) -> bool:
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    filled = len(pad.input) > 2 and pad.input[2] != ""
    return mode == b"constant" and not (filled and _constant(model, pad.input[2], producers).any())


def _constant(model: onnx.ModelProto, name: str, producers: dict[str, onnx.NodeProto]) -> NDArray[Any]:
    """The value of a tensor that depends on constants only."""
    needed: list[onnx.NodeProto] = []
    waiting = [name]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node not in needed:
            needed.append(node)
            waiting.extend(node.input)
    nodes = [node for node in model.graph.node if node in needed]
    graph = helper.make_graph(
        nodes, "constant", [], [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)]
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    values: Any = ReferenceEvaluator(part).run(None, {})
    return np.asarray(values[0])


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes whose outputs nothing reads."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
