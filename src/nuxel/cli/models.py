"""``nuxel models``."""

from __future__ import annotations

import argparse


def add_arguments(_: argparse.ArgumentParser) -> None:
    """The verb takes no arguments."""


def run(_: argparse.Namespace) -> int:
    from nuxel.predict.model import Model, shipped_models

    for name, path in shipped_models().items():
        card = Model(path, threads=1, device="cpu").card
        print(f"{name}  {path.stat().st_size / 1e6:.1f} MB  {card.title}  ({card.licence})")
        for what, score in sorted(card.scores.items()):
            print(f"    {what}: {score:.3f}")
    return 0
