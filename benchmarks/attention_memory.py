"""How the memory of attention over a whole map grows with the map: decomposed, and with the N x N matrix it stands for.

    python benchmarks/attention_memory.py [--channels 256] [--hidden 64]

Forward and backward of one map of noise, each side and form in a process of its own. Prints a Markdown table of the
MiB by which the process' peak grew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource

import torch
from torch import Tensor

from nuxel.nn.decomposed_attention import DecomposedSelfAttention

SIDES = (32, 64, 96, 128, 256)
LARGEST_MATRIX = 128
"""Side of the largest map of which the whole matrix is made: 1 GiB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=64)
    given = parser.parse_args()
    print("| side | locations | decomposed, MiB | with the matrix, MiB |")
    print("|---|---|---|---|")
    alone = multiprocessing.get_context("spawn")
    for side in SIDES:
        cells = []
        for whole in (False, True):
            if whole and side > LARGEST_MATRIX:
                cells.append("not tried")
                continue
            with alone.Pool(1) as pool:
                cells.append(f"{pool.apply(measure, (side, given.channels, given.hidden, whole)):.0f}")
        print(f"| {side} | {side * side:,} | {' | '.join(cells)} |", flush=True)


def measure(side: int, channels: int, hidden: int, whole: bool) -> float:
    """MiB by which the peak grows."""
    torch.set_num_threads(1)
    block = DecomposedSelfAttention(channels, hidden)
    torch.nn.init.normal_(block.out.weight)
    answer = quadratic if whole else DecomposedSelfAttention.forward
    answer(block, torch.randn(1, channels, 8, 8)).sum().backward()  # what a first call loads
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer(block, torch.randn(1, channels, side, side)).sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def quadratic(block: DecomposedSelfAttention, x: Tensor) -> Tensor:
    """The same answer by way of the matrix A of what each location attends to."""
    bases = block.basis(x).flatten(2).softmax(2)
    coefficients = block.coefficient(x).softmax(1).flatten(2)
    matrix = coefficients.transpose(1, 2) @ bases
    values = block.value(x)
    attended = (values.flatten(2) @ matrix.transpose(1, 2)).view_as(values)
    result: Tensor = x + block.out(attended)
    return result


if __name__ == "__main__":
    main()
