"""``nuxel info FILE``: of an image or of a model file."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nuxel.cli.shared import path_given
from nuxel.errors import NuxelError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=path_given, metavar="FILE", help="an image, a model file, or the name of a shipped model"
    )


def run(options: argparse.Namespace) -> int:
    text = json.dumps(_described(options.file), indent=2, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode())  # a name may hold bytes that are no text
    return 0


def _described(path: Path) -> dict[str, Any]:
    from nuxel.image.formats import is_image_name
    from nuxel.image.read import describe_image
    from nuxel.predict.model import shipped_models

    if not os.path.exists(path):
        path = shipped_models().get(str(path), path)
    if path.suffix.lower() == ".onnx":
        return _of_model(path)
    try:
        return describe_image(path)
    except NuxelError as no_image:
        # a model file may have any name, but that of an image, which may be large
        if is_image_name(path) or not os.path.isfile(path):
            raise
        try:
            return _of_model(path)
        except NuxelError:
            raise no_image from None


def _of_model(path: Path) -> dict[str, Any]:
    from nuxel.predict.model import Model

    model = Model(path, threads=1, device="cpu")
    return {"path": str(path), "sha256": model.sha256, **asdict(model.card)}
