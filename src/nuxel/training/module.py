"""The system as Lightning trains it: loss, optimiser, schedule."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from nuxel.training.recipe import Recipe
from nuxel.training.samples import Sample


class TrainingModule(pl.LightningModule):
    """One optimiser step a batch; the learning rate changes every step."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.network: nn.Module = recipe.system.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in ``[0, 1]`` -> probabilities and log diameter ``(N, 4, H, W)``."""
        return self.recipe.system.probabilities(self.network(images))

    def training_step(self, batch: Sample, _: int) -> Tensor:
        images, targets, annotated = batch
        images = images.contiguous(memory_format=torch.channels_last)
        losses = self.recipe.system.compute_loss(self.network(images), targets, annotated)
        named = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=len(images))
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    def configure_optimizers(self) -> Any:
        schedule = self.recipe.schedule
        rates = {"encoder": schedule.encoder_rate, "decoder": schedule.decoder_rate}
        groups = self.recipe.system.parameter_groups(self.network)
        optimiser = torch.optim.AdamW(
            [{"params": params, "lr": rates[name]} for name, params in groups.items()],
            weight_decay=schedule.weight_decay,
        )
        total = schedule.epochs * schedule.steps_per_epoch
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(step, schedule.warmup_steps, total))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def rate_factor(step: int, warmup: int, total: int) -> float:
    """Share of the full learning rate at a step: a linear rise, then half a cosine down to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
