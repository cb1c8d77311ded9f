"""Cutting ONNX files: the parts compute what the whole does, and what is no ONNX is refused in a sentence."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuxel.errors import NuxelError
from nuxel.predict.graph_file import part_of
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path

onnx = pytest.importorskip("onnx", reason="the training half is not installed")


def small_model() -> bytes:
    """``image`` -> conv -> ``middle`` -> conv -> ``maps``, and ``middle`` -> ``aside``, which nobody gives."""
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["image", "first"], ["middle"], pads=[1, 1, 1, 1]),
            node("Relu", ["middle"], ["aside"]),
            node("Conv", ["middle", "second"], ["maps"], pads=[1, 1, 1, 1]),
        ],
        "small",
        [value("image", 1, [1, 2, "height", "width"])],
        [value("maps", 1, [1, 2, "height", "width"])],
        [onnx.numpy_helper.from_array(weights * k, name) for k, name in ((1, "first"), (2, "second"))],
        value_info=[value("middle", 1, [1, 2, "height", "width"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "nuxel", "x" * 300  # a length of two bytes
    data: bytes = model.SerializeToString()
    return data


def run(content: bytes, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(values) for values in session.run(None, feeds)]


def test_two_parts_one_after_the_other_are_the_whole() -> None:
    content = small_model()
    image = np.random.default_rng(1).normal(size=(1, 2, 9, 7)).astype(np.float32)
    (middle,) = run(part_of(content, ["image"], ["middle"]), image=image)
    (maps,) = run(part_of(content, ["middle"], ["maps"]), middle=middle)
    np.testing.assert_array_equal(maps, run(content, image=image)[0])


def test_a_part_is_what_the_reference_cuts_out() -> None:
    part = onnx.load_from_string(part_of(small_model(), ["middle"], ["maps"]))
    onnx.checker.check_model(part)
    reference = onnx.utils.Extractor(onnx.load_from_string(small_model())).extract_model(["middle"], ["maps"])
    for field in ("node", "initializer", "input", "output"):
        assert list(getattr(part.graph, field)) == list(getattr(reference.graph, field))
    assert part.ir_version == reference.ir_version
    assert list(part.opset_import) == list(reference.opset_import)
    assert not part.metadata_props


def test_the_shipped_model_is_cut_as_the_reference_does() -> None:
    path = model_path(DEFAULT_MODEL)
    whole = onnx.load(path)
    for stage in Model(path, threads=1, device="cpu").card.stages:
        part = onnx.load_from_string(part_of(path.read_bytes(), stage.reads, stage.gives))
        reference = onnx.utils.Extractor(whole).extract_model(list(stage.reads), list(stage.gives))
        assert [node.output for node in part.graph.node] == [node.output for node in reference.graph.node]
        assert {one.name for one in part.graph.initializer} == {
            one.name for one in reference.graph.initializer
        }


def test_what_a_part_needs_must_be_given() -> None:
    with pytest.raises(NuxelError, match="needs 'image', which it is not given"):
        part_of(small_model(), [], ["middle"])


@pytest.mark.parametrize(("reads", "gives"), [(["absent"], ["maps"]), (["image"], ["aside"])])
def test_a_tensor_of_which_the_file_says_nothing(reads: list[str], gives: list[str]) -> None:
    with pytest.raises(NuxelError, match=r"nothing of the type|which it is not given"):
        part_of(small_model(), reads, gives)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(NuxelError):
        part_of(content, ["image"], ["maps"])


@given(st.data())
def test_a_truncated_file_is_refused(data: st.DataObject) -> None:
    content = small_model()
    graph = onnx.load_from_string(content).graph.SerializeToString()
    length = data.draw(st.integers(0, content.index(graph) + len(graph) - 1))
    with pytest.raises(NuxelError):
        part_of(content[:length], ["image"], ["maps"])
