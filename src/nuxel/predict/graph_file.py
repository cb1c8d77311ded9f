"""A part of an ONNX file as a file of its own, without the package that writes such files.

ONNX is Protocol Buffers: a message is a sequence of fields, each a number, a kind and a value. To cut a graph, whole
fields are copied; only the graph's and the model's own length change. What is not copied is not understood, either.
The numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from nuxel.errors import NuxelError

_GRAPH, _METADATA = 7, 14
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_TENSOR_NAME, _VALUE_NAME = 8, 1
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message: its number, its bytes as they stand, and its value if that is a message or a text."""

    number: int
    whole: memoryview
    value: memoryview


def part_of(content: bytes, reads: Collection[str], gives: Collection[str]) -> bytes:
    """The ONNX model that computes some tensors of a model from some others.

    Parameters
    ----------
    content
        An ONNX file. All tensors named have an entry in the graph's inputs, outputs or ``value_info``.
    reads
        Names of the tensors that become the inputs.
    gives
        Names of the tensors that become the outputs. They need nothing but ``reads`` and the weights.

    Returns
    -------
    An ONNX file without metadata, with the weights that it needs.

    Raises
    ------
    NuxelError
        If the model has no such tensors, or ``gives`` needs more than ``reads``.
    """
    model = list(_fields(memoryview(content)))
    graph = [field for part in model if part.number == _GRAPH for field in _fields(part.value)]
    nodes, weights = _needed(graph, set(reads), set(gives))
    types = {
        _text(field.value, _VALUE_NAME): field.value
        for field in graph
        if field.number in (_INPUT, _OUTPUT, _VALUE_INFO)
    }
    if missing := [name for name in (*reads, *gives) if name not in types]:
        raise NuxelError(f"the graph says nothing of the type of {missing[0]!r}")
    inner = b"".join(
        [
            *(field.whole for field in graph if field.number not in _PARTS),
            *(node.whole for node in nodes),
            *(weight.whole for weight in weights),
            *(_wrapped(_INPUT, types[name]) for name in reads),
            *(_wrapped(_OUTPUT, types[name]) for name in gives),
            *(_wrapped(_VALUE_INFO, types[name]) for name in _made_by(nodes) - set(gives) if name in types),
        ]
    )
    outer = [field.whole for field in model if field.number not in (_GRAPH, _METADATA)]
    return b"".join([*outer, _wrapped(_GRAPH, inner)])


_PARTS = (_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO)


def _needed(graph: list[Field], reads: set[str], gives: set[str]) -> tuple[list[Field], list[Field]]:
    """The nodes on the way from ``reads`` to ``gives``, in order, and the weights that they use."""
    weights = {_text(field.value, _TENSOR_NAME): field for field in graph if field.number == _INITIALIZER}
    wanted, used, nodes = set(gives), set(), []
    for node in reversed([field for field in graph if field.number == _NODE]):
        if wanted.isdisjoint(_texts(node.value, _NODE_OUTPUT)):
            continue
        nodes.append(node)
        wanted.difference_update(_texts(node.value, _NODE_OUTPUT))
        for name in _texts(node.value, _NODE_INPUT):
            if name in weights:
                used.add(name)
            elif name and name not in reads:
                wanted.add(name)
    if wanted:
        raise NuxelError(f"a part of the graph needs {min(wanted)!r}, which it is not given")
    return nodes[::-1], [weights[name] for name in sorted(used)]


def _made_by(nodes: list[Field]) -> set[str]:
    return {name for node in nodes for name in _texts(node.value, _NODE_OUTPUT)}


def _texts(message: memoryview, number: int) -> list[str]:
    return [bytes(field.value).decode() for field in _fields(message) if field.number == number]


def _text(message: memoryview, number: int) -> str:
    return next(iter(_texts(message, number)), "")


def _fields(message: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        kind, value = key & 7, at
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _LENGTH:
            length, value = _varint(message, at)
            at = value + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise NuxelError(f"the graph holds a field of kind {kind}, which ONNX files do not have")
        if at > len(message):
            raise NuxelError("the graph is cut short")
        yield Field(key >> 3, message[start:at], message[value:at])


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, the lowest first, and where the next value starts."""
    number = shift = 0
    while at < len(message):
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    raise NuxelError("the graph is cut short")


def _wrapped(number: int, value: bytes | memoryview) -> bytes:
    """A field with a message or a text as its value."""
    head = bytearray()
    for part in (number << 3 | _LENGTH, len(value)):
        while part > 127:
            head.append(part & 127 | 128)
            part >>= 7
        head.append(part)
    return bytes(head) + bytes(value)
