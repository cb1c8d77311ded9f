"""Errors that a person is meant to read: one sentence that says what, where and what to do."""


class NuxelError(Exception):
    """Something that the user gave cannot be used. The message is shown as it stands, without a traceback."""


class UsageError(NuxelError):
    """The command or the call itself is wrong, so nothing was started (exit code 2)."""
