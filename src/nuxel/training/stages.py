"""Where a U-Net's graph can be cut, and how far each part of it looks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import onnx
from onnx import NodeProto

from nuxel.predict.stages import IMAGE, Stage

FINE = 4
"""Strides up to which a decoder's block runs tile by tile: at the next one all its maps together are small."""

_BY_PIXEL = {"Add", "Cast", "Clip", "Concat", "Div", "Identity", "Mul", "Relu", "Sigmoid", "Slice", "Sub"}


class Extent(NamedTuple):
    """What the pixel ``i`` of a tensor depends on along an axis: from ``stride i + first`` to ``stride i + last``."""

    stride: int
    first: int
    last: int

    @property
    def reach(self) -> int:
        return max(-self.first, self.last - self.stride + 1)


def find_stages(model: onnx.ModelProto) -> tuple[Stage, ...]:
    """The three stages of a U-Net whose decoder adds: fine encoder, everything deep, fine decoder.

    A block of that decoder adds an enlarged map to a convolved skip: :class:`nuxel.nn.multihead_unet.UpBlock`. The
    cuts are the skips, where an encoder is thin, and the last map before the first block at a fine stride is enlarged.

    Parameters
    ----------
    model
        An exported graph from ``image`` to one output.

    Returns
    -------
    The stages in the order in which they run; none for a graph that is not of this form.
    """
    try:
        return tuple(_stages(model))
    except _Unknown:
        return ()


def _stages(model: onnx.ModelProto) -> Iterator[Stage]:
    makers = {name: node for node in model.graph.node for name in node.output}
    joins = [(skip, coarse) for node in model.graph.node for skip, coarse in _joined(node, makers)]
    walk = _Walk(makers, {IMAGE: Extent(1, 0, 0)}, _weights(model))
    fine = [place for place, (skip, _) in enumerate(joins) if walk.extent(skip).stride <= FINE]
    if len(model.graph.output) != 1 or not fine or fine[0] == 0:
        return
    skips = [skip for skip, _ in joins[fine[0] - 1 :]]
    deep, middle = skips[0], joins[fine[0]][1]
    strides = {name: walk.extent(name).stride for name in (IMAGE, *skips, middle)}
    for reads, gives, tiled in (
        ((IMAGE,), tuple(skips), True),
        ((deep,), (middle,), False),
        ((*skips[1:], middle), (model.graph.output[0].name,), True),
    ):
        reach = _reach(model, {name: strides[name] for name in reads}, gives)
        yield Stage(reads, gives, reach if tiled else None)


def _joined(node: NodeProto, makers: dict[str, NodeProto]) -> Iterator[tuple[str, str]]:
    """The skip that a decoder's block reads and the map that it enlarges, if the node is where it adds them."""
    if node.op_type != "Add":
        return
    made = {makers[name].op_type: makers[name] for name in node.input if name in makers}
    if made.keys() == {"Resize", "Conv"}:
        yield made["Conv"].input[0], made["Resize"].input[0]


def _reach(model: onnx.ModelProto, strides: dict[str, int], gives: Collection[str]) -> int:
    """How far the tensors ``gives`` look beyond their own pixels into those with these strides, in pixels."""
    makers = {name: node for node in model.graph.node for name in node.output}
    known = {name: Extent(stride, 0, stride - 1) for name, stride in strides.items()}
    walk = _Walk(makers, known, _weights(model))
    return max(walk.extent(name).reach for name in gives)


def _weights(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {one.name: tuple(one.dims) for one in model.graph.initializer}


class _Unknown(Exception):
    """An operation, or a tensor, of which it is not known what it depends on."""


class _Walk:
    """Extents of a graph's tensors, from those that are known on; the wider of both axes.

    ``weights`` has the shapes of the graph's weights, by name.
    """

    def __init__(
        self, makers: dict[str, NodeProto], known: dict[str, Extent], weights: dict[str, tuple[int, ...]]
    ) -> None:
        self.makers, self.known, self.weights = makers, dict(known), weights

    def extent(self, name: str) -> Extent:
        if name not in self.known:
            node = self.makers.get(name)
            if node is None:
                raise _Unknown(name)
            self.known[name] = self._of(node)
        return self.known[name]

    def _of(self, node: NodeProto) -> Extent:
        if node.op_type == "Conv":
            return self._of_convolution(node)
        if node.op_type == "DepthToSpace":
            return _enlarged(self.extent(node.input[0]), _number(node, "blocksize"))
        if node.op_type == "Resize" and _text(node, "mode") == "nearest":
            return _enlarged(self.extent(node.input[0]), 2)
        if node.op_type not in _BY_PIXEL:
            raise _Unknown(node.op_type)
        sides = [self.extent(name) for name in node.input if name and not self._is_constant(name)]
        if not sides or len({side.stride for side in sides}) > 1:
            raise _Unknown(node.name)
        return Extent(sides[0].stride, min(side.first for side in sides), max(side.last for side in sides))

    def _of_convolution(self, node: NodeProto) -> Extent:
        stride, first, last = self.extent(node.input[0])
        kernel = _numbers(node, "kernel_shape")
        step, dilation = _numbers(node, "strides") or [1, 1], _numbers(node, "dilations") or [1, 1]
        pads = _numbers(node, "pads") or [0, 0, 0, 0]
        before = max(pads[:2])
        after = max(d * (k - 1) - pad for d, k, pad in zip(dilation, kernel, pads[:2], strict=True))
        if step[0] != step[1]:
            raise _Unknown(node.name)
        return Extent(stride * step[0], first - stride * before, last + stride * after)

    def _is_constant(self, name: str) -> bool:
        if name in self.weights:
            return True
        node = self.makers.get(name)
        return node is not None and name not in self.known and all(map(self._is_constant, node.input))


def _enlarged(extent: Extent, factor: int) -> Extent:
    """Of a map in which each pixel is repeated: the last of its repetitions lies furthest from its first pixel."""
    stride = extent.stride // factor
    if stride * factor != extent.stride:
        raise _Unknown("a map finer than the image")
    return Extent(stride, extent.first - (factor - 1) * stride, extent.last)


def _numbers(node: NodeProto, name: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def _number(node: NodeProto, name: str) -> int:
    return next((a.i for a in node.attribute if a.name == name), 1)


def _text(node: NodeProto, name: str) -> str:
    return next((a.s.decode() for a in node.attribute if a.name == name), "")
