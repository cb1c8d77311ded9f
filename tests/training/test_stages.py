"""Where graphs are cut, and that their parts look as far as is said and no further."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="the training half is not installed")

from nuxel.predict.model import DEFAULT_MODEL, Model, model_path  # noqa: E402
from nuxel.predict.stages import IMAGE, Stage  # noqa: E402
from nuxel.training.export import export_module  # noqa: E402
from nuxel.training.module import TrainingModule  # noqa: E402
from nuxel.training.recipe import make_recipe  # noqa: E402
from nuxel.training.stages import find_stages  # noqa: E402


def exported(folder: Path, **network: object) -> Model:
    raw = {"system": "multihead_unet", "network": {"weights": "none", **network}, "schedule": {"crop": 64}}
    torch.manual_seed(0)
    module = TrainingModule(make_recipe(raw, "test")).eval()
    export_module(module, folder / "model.onnx")
    return Model(folder / "model.onnx", threads=1, device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return exported(tmp_path_factory.mktemp("small"), widths=[16, 8, 8], convolutions=[2, 2, 1])


def test_an_exported_u_net_has_three_stages(small: Model) -> None:
    early, deep, late = small.card.stages
    assert early.reads == (IMAGE,)
    assert deep.reads == early.gives[:1]
    assert late.reads == (*early.gives[1:], *deep.gives)
    assert late.gives == ("maps",)
    assert (early.reach, deep.reach, late.reach) == (33, None, 21)


def _reads_of(small: Model, stage: Stage, side: int) -> dict[str, np.ndarray]:
    """What a stage reads of an image of zeros."""
    seen = {IMAGE: np.zeros((1, 3, side, side), np.float32)}
    for place, one in enumerate(small.card.stages):
        if one == stage:
            break
        seen.update(zip(one.gives, small._run_stage(place, {n: seen[n] for n in one.reads}), strict=True))
    return {name: seen[name] for name in stage.reads}


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("axis", [2, 3])
def test_a_stage_looks_as_far_as_it_says_and_no_further(small: Model, place: int, axis: int) -> None:
    """One row or column changes of all that it reads; what it gives changes within its reach only, and up to it."""
    stage, side = small.card.stages[place], 160
    reads = _reads_of(small, stage, side)
    before = small._run_stage(place, reads)
    assert stage.reach is not None
    furthest = 0
    for line in range(64, 80):
        changed = {name: values.copy() for name, values in reads.items()}
        for name, values in changed.items():
            factor = side // values.shape[2]
            rng = np.random.default_rng(line)
            index = [slice(None)] * 4
            index[axis] = slice(line // factor, line // factor + 1)
            values[tuple(index)] += rng.normal(size=values[tuple(index)].shape).astype(np.float32) * 50
            changed[name] = values
        for old, new in zip(before, small._run_stage(place, changed), strict=True):
            factor = side // old.shape[2]
            moved = np.nonzero(np.abs(new - old).max(axis=(0, 1, 5 - axis)))[0]
            coarsest = max(side // values.shape[2] for values in reads.values())
            first, last = line // coarsest * coarsest, line // coarsest * coarsest + coarsest - 1
            # the cell of a coarse map covers several pixels; the change may be anywhere in it
            distance = max(first - (moved[0] * factor + factor - 1), moved[-1] * factor - last)
            furthest = max(furthest, int(distance))
    assert furthest <= stage.reach
    assert furthest >= stage.reach - 8


@pytest.mark.parametrize(
    "network",
    [
        {"decoder": "concat", "widths": [16, 8, 8, 8]},
        {"encoder": "plain", "decoder": "concat", "depth": 2, "encoder_widths": [4, 4, 8], "widths": [8, 4]},
        {"depth": 2, "widths": [8]},
    ],
    ids=["concatenated", "plain", "nothing deep"],
)
def test_other_graphs_are_not_cut(network: dict[str, object], tmp_path: Path) -> None:
    assert exported(tmp_path, **network).card.stages == ()


def test_an_operation_that_nobody_knows_keeps_a_graph_whole() -> None:
    whole = onnx.load(model_path(DEFAULT_MODEL))
    assert len(find_stages(whole)) == 3
    for node in whole.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Softplus"
    assert find_stages(whole) == ()
