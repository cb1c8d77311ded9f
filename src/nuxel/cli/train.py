"""``nuxel train RECIPE --out RUN``."""

from __future__ import annotations

import argparse
import sys

from nuxel.cli.shared import path_given, require_training, warnings_told
from nuxel.errors import InterruptedRunError, NuxelError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", type=path_given, metavar="RECIPE.toml", help="what to train, on what, and how long"
    )
    parser.add_argument("--out", required=True, type=path_given, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one key: table.key=value"
    )
    parser.add_argument(
        "--init",
        metavar="RUN",
        help="start from the weights of this run, checkpoint or model (an .onnx file, or default) of the same network",
    )
    parser.add_argument("--resume", action="store_true", help="continue a run after its last finished epoch")
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validate: K runs, each validated on its part of the training images",
    )


def run(options: argparse.Namespace) -> int:
    require_training()
    from nuxel.training.folds import train_folds
    from nuxel.training.recipe import make_recipe, read_recipe
    from nuxel.training.train import train

    try:
        recipe = read_recipe(options.recipe, options.set)
        if options.init is not None:
            recipe = make_recipe({**recipe.raw, "init": options.init}, str(options.recipe))
        with warnings_told(_tell):
            if options.folds is not None:
                found = train_folds(recipe, options.out, options.folds, resume=options.resume, tell=_tell)
                for name, (mean, deviation) in found.items():
                    print(f"{name}: {mean:.4f} +- {deviation:.4f} over {options.folds} folds")
                return 0
            checkpoint = train(recipe, options.out, resume=options.resume)
    except InterruptedRunError:
        raise
    except NuxelError as error:  # it has not started: there is no input to go on with
        raise UsageError(str(error)) from None
    print(
        f"trained: {checkpoint}; make a model file of it with: nuxel export-model {options.out} --out MODEL.onnx"
    )
    return 0


def _tell(text: str) -> None:
    print(f"nuxel train: {text}", file=sys.stderr, flush=True)
