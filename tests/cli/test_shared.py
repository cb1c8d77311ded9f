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


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal here")
@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_the_end_of_the_terminal_is_one_too_unless_nohup_ignores_it(before: signal.Handlers) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    try:
        if before == signal.SIG_IGN:
            with tidy_end():
                os.kill(os.getpid(), signal.SIGHUP)
        else:
            with pytest.raises(SystemExit) as caught, tidy_end():
                os.kill(os.getpid(), signal.SIGHUP)
            assert caught.value.code == 128 + signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, kept)


def test_a_thread_that_may_not_say_what_signals_do() -> None:
    entered = []

    def enter() -> None:
        with tidy_end():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]
