"""How a verb ends when it is told to, from whichever thread it runs."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from nuxel.cli.shared import tidy_end


@pytest.mark.skipif(sys.platform == "win32", reason="there, to signal a process is to end it")
def test_sigterm_is_an_exception_in_the_block_and_what_it_was_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, tidy_end():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_that_may_not_say_what_signals_do() -> None:
    entered = []

    def enter() -> None:
        with tidy_end():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]
