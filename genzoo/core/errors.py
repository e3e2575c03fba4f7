"""The errors that people may read."""

import signal

LONGEST_REASON = 300
"""Characters of a reason told by `reason_of`."""


class GenzooError(Exception):
    """User error; the message is one line that says what was wrong and what to change."""


class Interrupted(KeyboardInterrupt):
    """A signal ended a training early, after it had saved what it has: SIGINT, SIGTERM or SIGHUP.

    It is no `GenzooError`, and like `KeyboardInterrupt` no `Exception`: whatever waits for the training ends too.
    `name` is that of the signal, `exit_code` what a command ends with, 128 and the signal's number.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"stopped by {name}")
        self.name = name
        self.exit_code = 128 + int(getattr(signal, name, signal.SIGINT))


class NoLikelihood(GenzooError):
    """Raised by `log_likelihood` of a family that defines no probability of an image (a GAN, say)."""


class InvalidValue(GenzooError, ValueError):
    """An argument, or a field of a configuration, that has no such value."""


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line of bounded length; errors that are not meant for people begin with their type.

    >>> reason_of(GenzooError("two images are needed")), reason_of(ValueError("n = 0"))
    ('two images are needed', 'ValueError: n = 0')
    """
    text = " ".join(str(error).split())
    if not isinstance(error, GenzooError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."
