"""Changes to an exported graph that leave its answer as it is and make it lighter to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

_LARGE = 1024
"""Numbers from which on a tensor is worth a node that widens it."""


def fold_padding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let each convolution do the zero padding that a ``Pad`` node does for it alone.

    The tracing exporter writes asymmetric padding as a node of its own, which copies the largest tensors of the
    network; a convolution can pad each side differently by itself.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        pad = producers.get(conv.input[0])
        users = [node for node in graph.node if conv.input[0] in _read_by(node)]
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
            wanted.update(_read_by(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _read_by(node: onnx.NodeProto) -> set[str]:
    """What a node reads, within its branches and loops too."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            names.update(*(_read_by(inner) for inner in graph.node), (out.name for out in graph.output))
    return names


def name_sizes(model: onnx.ModelProto, stride: int) -> onnx.ModelProto:
    """Say of every map how its height and width follow from the image's: ``height``, ``height_2``, ``height_4`` ...

    A runtime cannot see by itself that an enlarged map and a skip have the same size while the image's is open.
    Where it can, it adds them within the convolution before: a twentieth faster, and with less memory.

    Parameters
    ----------
    model
        A graph with the input ``image``, ``(1, 3, height, width)``; it is changed in place.
    stride
        The sides of its input are multiples of this.
    """
    height, width = 4 * stride, 8 * stride
    names = [name for node in model.graph.node for name in node.output]
    feeds = {"image": np.zeros((1, 3, height, width), np.float32)}
    shapes = {name: np.shape(value) for name, value in zip(names, _values(model, names, feeds), strict=True)}
    final = {output.name for output in model.graph.output}
    del model.graph.value_info[:]
    for name, shape in shapes.items():
        if name not in final and len(shape) == 4 and shape[3] == 2 * shape[2] and height % shape[2] == 0:
            factor = height // shape[2]
            ends = [side if factor == 1 else f"{side}_{factor}" for side in ("height", "width")]
            model.graph.value_info.append(
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, shape[1], *ends])
            )
    onnx.checker.check_model(model)
    return model


def halve_weights(model: onnx.ModelProto) -> None:
    """Store large weights as 16-bit floats, which a runtime makes 32 bits wide again when it opens the file.

    Half the size; what is computed is as wide as before. Weights too large for 16 bits stay as they are. The graph is
    changed in place.
    """
    graph = model.graph
    wide = [one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    casts = []
    for one in wide:
        values = numpy_helper.to_array(one)
        if values.size < _LARGE or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = f"{one.name}_half"
        graph.initializer.remove(one)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), name))
        casts.append(helper.make_node("Cast", [name], [one.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)


def _values(model: onnx.ModelProto, names: list[str], feeds: dict[str, NDArray[Any]]) -> list[Any]:
    """What the nodes of a graph give."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(names, feeds))
