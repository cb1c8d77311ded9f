"""``nuxel export-model RUN --out MODEL.onnx``."""

from __future__ import annotations

import argparse

from nuxel.cli.shared import path_given, require_training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=path_given, metavar="RUN", help="folder of a training run")
    parser.add_argument(
        "--out", required=True, type=path_given, metavar="MODEL.onnx", help="model file to write"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="choose the decoder's parameters on the recipe's validation images",
    )
    parser.add_argument(
        "--half", action="store_true", help="store weights as 16-bit floats: a file of half the size"
    )


def run(options: argparse.Namespace) -> int:
    require_training()
    from nuxel.training.export import export_run

    card = export_run(options.run_folder, options.out, tune=options.tune, half=options.half)
    seen = f"reach {card.reach} pixels" if card.window is None else f"windows of {card.window} pixels"
    print(f"{options.out}: {card.title}, {options.out.stat().st_size / 1e6:.1f} MB, {seen}")
    if options.tune:
        chosen = ", ".join(f"{name} {value}" for name, value in card.decoder_rule.items())
        print(f"decoder: {chosen}; mAP on the validation images {card.scores['val mAP']:.3f}")
    return 0
