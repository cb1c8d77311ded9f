"""Mixed precision on a processor: which of its forms pays, and where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

FULL, MIXED = "32-true", "bf16-mixed"
_GROUPS = 6
"""Place of ``groups`` among the arguments of a convolution."""


def resolve_precision(precision: str) -> str:
    """What ``"auto"`` stands for on this machine: mixed precision where bfloat16 is multiplied in hardware, else none.

    That is a GPU which says so, or a processor with AMX (Intel since Sapphire Rapids) or AVX-512 BF16 (AMD since
    Zen 4). Other precisions stay.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return MIXED if torch.cuda.is_bf16_supported(including_emulation=False) else FULL
    processor = torch.cpu.get_capabilities()
    return MIXED if processor.get("amx_bf16") or processor.get("avx512_bf16") else FULL


class GroupedConvolutionsInFull(TorchFunctionMode):
    """While active, convolutions in groups are not touched by autocast: they stay in float32.

    On a processor the gradient of a depthwise convolution in bfloat16 costs several times the one in float32, more than
    all others gain.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if (
            func is functional.conv2d
            and (args[_GROUPS] if len(args) > _GROUPS else named.get("groups", 1)) > 1
        ):
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:], **named)
        return func(*args, **named)
