"""``nuxel export-model RUN --out MODEL.onnx``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nuxel.cli.train import train_half


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a training run")
    parser.add_argument("--out", required=True, type=Path, metavar="MODEL.onnx", help="model file to write")


def run(options: argparse.Namespace) -> int:
    train_half()
    from nuxel.training.export import export_run

    card = export_run(options.run_folder, options.out)
    print(
        f"{options.out}: {card.title}, {options.out.stat().st_size / 1e6:.1f} MB, reach {card.reach} pixels"
    )
    return 0
