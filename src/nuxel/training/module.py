"""The system as Lightning trains it: loss, optimiser, schedule, validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from nuxel.errors import InterruptedRunError
from nuxel.predict.card import ModelCard
from nuxel.training.model_card import make_card
from nuxel.training.precision import GroupedConvolutionsInFull
from nuxel.training.recipe import Recipe
from nuxel.training.samples import Sample, widened
from nuxel.training.schedule import Schedule
from nuxel.training.validate import TorchNetwork, Validation, Whole


class TrainingModule(pl.LightningModule):
    """One optimiser step a batch; the learning rate changes every step.

    ``pictures`` is the folder for a picture per validation, None for no pictures.
    """

    def __init__(self, recipe: Recipe, pictures: Path | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.pictures = pictures
        self.network: nn.Module = recipe.system.build().to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """``(N, 3, H, W)`` in ``[0, 1]`` -> what the exported graph returns."""
        return self.recipe.system.answer(self.network, images)

    @cached_property
    def card(self) -> ModelCard:
        """What an exported file would say of this module."""
        return make_card(self.recipe, self.network)

    def on_train_epoch_start(self) -> None:
        """Freeze what the epoch's stage freezes: a function of the epoch alone, so that a run can resume anywhere."""
        stage, _ = self.recipe.schedule.stage_at(self.current_epoch)
        groups = self.recipe.system.parameter_groups(self.network)
        train_all_but(self.network, [parameter for part in stage.freeze for parameter in groups[part]])

    def training_step(self, batch: Sample, _: int) -> Tensor:
        # what samples or drops within a network draws from here: a function of the step, so that a run can resume
        torch.manual_seed(_mixed(self.recipe.seed, self.global_step, self.global_rank))
        images, targets, annotated = widened(batch)
        images = images.contiguous(memory_format=torch.channels_last)
        mixed = torch.is_autocast_enabled("cpu")
        with GroupedConvolutionsInFull() if mixed else nullcontext():
            losses = self.recipe.system.compute_loss(self.network, images, targets, annotated)
        named = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=len(images))
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    def on_train_epoch_end(self) -> None:
        self._refuse_not_finite()  # before the checkpoint of a better epoch is replaced

    def _refuse_not_finite(self) -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.network.parameters()):
            raise InterruptedRunError(
                f"in epoch {self.current_epoch} the weights became infinite or NaN; start another with lower rates in "
                "[schedule], or with a gradient_clip"
            )

    def on_validation_epoch_start(self) -> None:
        self._refuse_not_finite()
        self._validation = Validation(TorchNetwork(self, self.card))

    def validation_step(self, whole: Whole, _: int) -> None:
        self._validation.add(*whole)

    def on_validation_epoch_end(self) -> None:
        named = {f"val/{name}": value for name, value in self._validation.scores().items()}
        self.log_dict(named, prog_bar=True)
        if self.pictures is not None:
            self._validation.write_picture(self.pictures / f"epoch_{self.current_epoch:04d}.png")

    def configure_optimizers(self) -> Any:
        schedule = self.recipe.schedule
        groups = self.recipe.system.parameter_groups(self.network)
        optimisers = []
        for name, parts in groupby(groups, lambda part: schedule.optimiser_of(part)[0]):
            optimisers.append(
                _OPTIMISERS[name](
                    {
                        "params": groups[part],
                        "lr": schedule.greatest_rate(part),
                        "weight_decay": schedule.optimiser_of(part)[1],
                    }
                    for part in parts
                )
            )
        optimiser = optimisers[0] if len(optimisers) == 1 else Several(optimisers)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, [_rates(schedule, part) for part in groups])
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Several(torch.optim.Optimizer):
    """Several optimisers, of different parameters, as one: with one step, one state and all their groups in order.

    To Lightning, a schedule or a checkpoint there is one optimiser: with two it would leave the loop to us, and count
    two steps for each.
    """

    def __init__(self, optimisers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimisers = optimisers
        super().__init__([group for optimiser in optimisers for group in optimiser.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let each see the groups and the state of the whole."""
        groups = iter(self.param_groups)
        for optimiser in self.optimisers:
            optimiser.param_groups = list(islice(groups, len(optimiser.param_groups)))
            optimiser.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimiser in self.optimisers:
            optimiser.step()
        return loss


_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def _mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _rates(schedule: Schedule, part: str) -> Callable[[int], float]:
    return lambda step: schedule.relative_rate(part, step)


def train_all_but(network: nn.Module, frozen: Iterable[nn.Parameter]) -> None:
    """Put a network into training mode, ``frozen`` parameters excepted.

    What is made of them alone goes into evaluation mode: its batch normalisation neither uses nor changes the
    statistics of a batch.
    """
    held = {id(parameter) for parameter in frozen}
    network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) not in held)
    for part in network.modules():
        own = {id(parameter) for parameter in part.parameters()}
        if own and own <= held:
            part.eval()
