"""``nuxel info FILE``: of an image or of a model file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="an image, a model file, or the name of a shipped model"
    )


def run(options: argparse.Namespace) -> int:
    path: Path = options.file
    if not path.exists() and not path.suffix:
        from nuxel.predict.model import shipped_models

        path = shipped_models().get(str(path), path)
    if path.suffix.lower() == ".onnx":
        from dataclasses import asdict

        from nuxel.predict.model import Model

        model = Model(path, threads=1, device="cpu")
        described = {"path": str(path), "sha256": model.sha256, **asdict(model.card)}
    else:
        from nuxel.image.read import describe_image

        described = describe_image(path)
    print(json.dumps(described, indent=2, ensure_ascii=False))
    return 0
