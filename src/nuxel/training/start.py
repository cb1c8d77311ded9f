"""The first weights of a training run, if they are not drawn: those of another run, or of a model file.

A model file has its batch normalisation folded into the convolutions. Training needs it again, so every normalisation
that has been folded is given the statistics that its inputs really have, and a scale and shift that undo it: the answer
stays the same. The weights before it have taken on its scale, a tenth to five times the size that they were trained
at, so that a learning rate would mean another thing in every layer. They get back the size that they have in a
network that starts afresh, and the normalisation undoes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from nuxel.errors import NuxelError, UsageError
from nuxel.names import RUN_RECIPE
from nuxel.nn.multihead_unet import UpBlock
from nuxel.predict.model import Model, model_path, shipped_models
from nuxel.systems.multihead_unet import MultiheadUNet
from nuxel.training.export import LAST, read_record, read_weights
from nuxel.training.module import TrainingModule

SAME = 1e-3
"""What the answers of a model file and of the network that took its weights may differ by."""

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_Conv = nn.Conv2d | nn.ConvTranspose2d


def start_from(module: TrainingModule, init: str, views: Iterable[Tensor]) -> None:
    """Give a module its first weights.

    Parameters
    ----------
    module
        What they are for.
    init
        The name of a shipped model, a model file (``.onnx``), a run folder or a checkpoint.
    views
        Batches ``(N, 3, H, W)`` in ``[0, 1]`` such as it will be trained on, at least one: for a model file, what
        normalisations are measured on. Nothing is drawn from them for a run.

    Raises
    ------
    UsageError
        If there is none of these.
    NuxelError
        If it is damaged, or of another network.
    """
    if init in shipped_models() or init.endswith(".onnx"):
        _start_from_model(module, model_path(init), views)
    else:
        _start_from_run(module, Path(init))


def _start_from_run(module: TrainingModule, init: Path) -> None:
    """What only one of the two networks has as a whole part (a module, a branch) stays as it was drawn, or is left
    out."""
    checkpoint = init / "checkpoints" / LAST if init.is_dir() else init
    if not checkpoint.is_file():
        raise UsageError(
            f"{init}: no run with a finished epoch to start from, no checkpoint and no .onnx file"
        )
    weights, own = read_weights(checkpoint), module.state_dict()
    theirs, ours = {_part(key) for key in weights}, {_part(key) for key in own}
    both = theirs & ours
    shared = {key: value for key, value in weights.items() if _part(key) in both}
    wanted = {key: value for key, value in own.items() if _part(key) in both}
    unfit = sorted(
        key
        for key in shared.keys() | wanted.keys()
        if key not in shared or key not in wanted or shared[key].shape != wanted[key].shape
    )
    if unfit or not both:
        unfit = unfit or sorted(own)
        raise NuxelError(
            f"{checkpoint}: its weights do not fit the recipe's network: {len(unfit)} of them are missing, left over "
            f"or of another shape, first {unfit[0]}; start from a run with the same system and [network]"
        )
    _compare_recipes(module, checkpoint, told=theirs != ours)
    for parts, fate in (
        (ours - both, "what it lacks starts at random: {}"),
        (theirs - both, "what only it has is left out: {}"),
    ):
        if parts:
            warnings.warn(f"{checkpoint}: {fate.format(', '.join(sorted(parts)))}", stacklevel=3)
    module.load_state_dict(shared, strict=False)


def _compare_recipes(module: TrainingModule, checkpoint: Path, *, told: bool) -> None:
    """Refuse weights of other maps, and warn of what else a run says of its network that no shape shows, unless the
    user is ``told`` of parts that are not shared."""
    record = checkpoint.parent.parent / RUN_RECIPE
    if not record.is_file():
        return
    theirs, ours = read_record(record).system, module.recipe.system
    if type(theirs) is not type(ours):
        return
    if isinstance(ours, MultiheadUNet) and theirs.maps != ours.maps:
        raise NuxelError(
            f"{checkpoint}: its network maps {', '.join(theirs.maps)}, and the recipe's {', '.join(ours.maps)}"
        )
    there, here = (vars(vars(system)["network"]) for system in (theirs, ours))
    others = [f"{key} = {there[key]}" for key in here if key != "weights" and there[key] != here[key]]
    if others and not told:
        warnings.warn(
            f"{checkpoint}: its weights were trained with [network] {', '.join(others)}", stacklevel=4
        )


def _part(key: str) -> str:
    """The part of the network that a weight belongs to: ``network.centre.score.bias`` is of ``network.centre``."""
    return ".".join(key.split(".")[:2])


def _start_from_model(module: TrainingModule, path: Path, views: Iterable[Tensor]) -> None:
    """Of a multi-head U-Net only: of the others, not every operation has weights that can be told from the file."""
    model = Model(path, device="cpu")
    if not isinstance(module.recipe.system, MultiheadUNet) or model.card.system != module.recipe.system.name:
        raise NuxelError(
            f"{path}: a {model.card.system} model file cannot be the start of a {module.recipe.system.name}; only a "
            "multihead_unet can start from a model file, and others from a run"
        )
    batches = list(views)
    calls = _Calls(module, batches[0][:1])
    stored = _convolutions(path)
    if [tuple(conv.weight.shape) for conv in calls.convolutions] != [
        tuple(one.weight.shape) for one in stored
    ]:
        raise _does_not_fit(path)
    fresh = {conv: _spread(conv.weight) for conv in calls.convolutions}
    with torch.no_grad():
        folded = set(calls.norms)
        for norm in calls.norms:
            norm.reset_running_stats()
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.bias.fill_(0)
        for conv, one in zip(calls.convolutions, stored, strict=True):
            conv.weight.copy_(one.weight)
            norm_after = calls.norm_after.get(conv)
            if one.norm is not None and norm_after is not None:
                norm_after.load_state_dict(one.norm, strict=False)
                folded.remove(norm_after)
            if conv.bias is not None:
                conv.bias.fill_(0)
            shift = conv.bias if norm_after is None or one.norm is not None else norm_after.bias
            if one.bias is not None and shift is not None:
                shift.copy_(one.bias)
        _measure(module, folded, batches)
        for norm, convolutions in calls.before.items():
            if norm in folded:
                _resize(convolutions, norm, [fresh[conv] for conv in convolutions])
        window = (batches[0][0].permute(1, 2, 0) * 255).round().to(torch.uint8)
        found = module.eval()(window.permute(2, 0, 1)[None].float() / 255)
        module.train()
    if model.card.maps != module.card.maps or np.abs(found[0].numpy() - model(window.numpy())).max() > SAME:
        raise _does_not_fit(path)


def _does_not_fit(path: Path) -> NuxelError:
    return NuxelError(
        f"{path}: its weights do not fit the recipe's network; start from a model with the same [network], such as "
        "the recipe has that it was trained by (recipes/default.toml of the model that ships)"
    )


class _Calls:
    """A network's convolutions in the order in which they are called, which is that of the exported graph; of each the
    normalisation whose shift its bias in the file stands for; and before each normalisation the convolutions whose sum
    it sees."""

    def __init__(self, module: TrainingModule, image: Tensor) -> None:
        self.convolutions: list[_Conv] = []
        self.norms: list[nn.BatchNorm2d] = []
        self.norm_after: dict[_Conv, nn.BatchNorm2d] = {}
        made_by: dict[int, tuple[_Conv, Tensor]] = {}

        def note(part: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            if isinstance(part, nn.BatchNorm2d):
                self.norms.append(part)
                if id(given[0]) in made_by:
                    self.norm_after[made_by[id(given[0])][0]] = part
            elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                self.convolutions.append(part)
                made_by[id(made)] = part, made  # the tensor is kept, lest another gets its number

        hooks = [part.register_forward_hook(note) for part in module.modules()]
        with torch.no_grad():
            module.eval()(image)
        module.train()
        for hook in hooks:
            hook.remove()
        self.before = {norm: [conv] for conv, norm in self.norm_after.items()}
        for block in module.modules():
            if isinstance(block, UpBlock):
                norm = block.join[0]
                assert isinstance(norm, nn.BatchNorm2d)
                self.norm_after[block.skip] = norm
                self.before[norm] = [block.skip, block.coarse]


@dataclass(frozen=True)
class _Stored:
    """A convolution in a model file, and the normalisation after it where it has not been folded."""

    weight: Tensor
    bias: Tensor | None
    norm: dict[str, Tensor] | None


def _convolutions(path: Path) -> list[_Stored]:
    """Those of a model file, in order. Exporting folds normalisations into all but transposed ones."""
    graph = onnx.load(path).graph
    values = {one.name: one for one in graph.initializer}
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Identity", "Cast")}

    def tensors(names: Sequence[str]) -> list[Tensor]:
        # of two equal tensors the exporter stores one; large ones may be stored as 16-bit floats
        held = []
        for name in names:
            while name in same:
                name = same[name]
            if name not in values:
                raise _not_told(path)
            held.append(values[name])
        return [torch.from_numpy(numpy_helper.to_array(one).astype(np.float32)) for one in held]

    norms = {node.input[0]: node for node in graph.node if node.op_type == "BatchNormalization"}
    found = []
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            weight, *bias = tensors(node.input[1:])
            norm = norms.pop(node.output[0], None)
            parts = None if norm is None else dict(zip(_NORM_PARTS, tensors(norm.input[1:]), strict=True))
            found.append(_Stored(weight, bias[0] if bias else None, parts))
    if norms:
        raise _not_told(path)
    return found


def _not_told(path: Path) -> NuxelError:
    return NuxelError(
        f"{path}: not every weight of its encoder can be told from the file, because it normalises what is no "
        "convolution's answer, or computes its weights; start from a run"
    )


def _measure(module: TrainingModule, norms: Collection[nn.BatchNorm2d], batches: Sequence[Tensor]) -> None:
    """Give normalisations that do nothing the mean and variance of their inputs, and let them still do nothing."""
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def add(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0].double()
        count = torch.full((values.shape[1],), values.numel() / values.shape[1], dtype=torch.float64)
        sums[norm] += torch.stack([count, values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])  # type: ignore[index]

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    module.eval()
    for batch in batches:
        module(batch)
    module.train()
    for hook in hooks:
        hook.remove()
    for norm, (count, total, squares) in sums.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((squares / count - mean.square()).clamp(min=0))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.add_(norm.running_mean)


def _spread(weight: Tensor) -> float:
    """Root mean square of weights."""
    return float(weight.detach().square().mean().sqrt())


def _resize(convolutions: Sequence[_Conv], norm: nn.BatchNorm2d, spreads: Sequence[float]) -> None:
    """Scale what each channel of a normalisation is made of, so that its weights together are as large as weights of
    these root mean squares; the normalisation undoes it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    wanted = sum(
        conv.weight[0].numel() * spread**2 for conv, spread in zip(convolutions, spreads, strict=True)
    )
    now = torch.stack([conv.weight.square().sum((1, 2, 3)) for conv in convolutions]).sum(0)
    factor = torch.where(now > 0, (wanted / now).sqrt(), 1.0)
    for conv in convolutions:
        conv.weight.mul_(factor.view(-1, 1, 1, 1))
    norm.running_mean.mul_(factor)
    norm.running_var.mul_(factor.square())
    norm.weight.copy_((norm.running_var + norm.eps).sqrt() / factor)
