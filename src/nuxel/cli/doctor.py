"""``nuxel doctor``: what is installed, what really runs, and whether the answer is the stored one."""

from __future__ import annotations

import argparse
import platform


def add_arguments(_: argparse.ArgumentParser) -> None:
    """The verb takes no arguments."""


def run(_: argparse.Namespace) -> int:
    from nuxel import __version__
    from nuxel.predict.cpu import available_cpus
    from nuxel.predict.self_test import installed_packages, running_providers, self_test

    print(
        f"nuxel {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    print(f"processors available: {available_cpus()}")
    for name, number in installed_packages().items():
        print(f"  {name:34s} {number or 'not installed'}")
    print("execution providers")
    for name, problem in running_providers().items():
        print(f"  {name:34s} {problem or 'runs'}")
    problem = self_test()
    print(f"self-test: {problem or 'passed'}")
    return 1 if problem else 0
