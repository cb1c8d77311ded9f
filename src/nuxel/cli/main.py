"""The ``nuxel`` command: one verb a file, imported when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from nuxel import __version__
from nuxel.errors import NuxelError, UsageError

_VERBS = {
    "segment": "find every nucleus in images",
    "evaluate": "compare predicted nuclei with true ones",
    "train": "train a system from a recipe",
    "study": "run a paper's study: its tables beside ours",
    "propagate": "add a model's nuclei to images that are partly annotated",
    "thin": "make partly annotated label images from fully annotated ones",
    "export-model": "turn a training run into one model file",
    "models": "list the models that ship with nuxel",
    "info": "say what an image or a model file holds",
    "doctor": "check the installation",
}

SOME_FAILED, WRONG_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 all done, 1 some inputs failed, 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="nuxel",
        description="Finds every nucleus in a microscopy image and draws each one as its own instance.",
    )
    parser.add_argument("--version", action="version", version=f"nuxel {__version__}")
    try:
        return _run(parser, arguments)
    except KeyboardInterrupt:  # while modules are still being imported
        print("nuxel: interrupted", file=sys.stderr)
        return SOME_FAILED


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    chosen = arguments[0] if arguments and arguments[0] in _VERBS else None
    for verb, help_text in _VERBS.items():
        sub = verbs.add_parser(verb, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        if verb == chosen:
            module = import_module(f"nuxel.cli.{verb.replace('-', '_')}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except UsageError as error:
        print(f"nuxel {options.verb}: {error}", file=sys.stderr)
        return WRONG_USAGE
    except NuxelError as error:
        print(f"nuxel {options.verb}: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print(f"nuxel {options.verb}: interrupted", file=sys.stderr)
        return SOME_FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return SOME_FAILED


if __name__ == "__main__":
    sys.exit(main())
