"""The errors that people may read."""

import signal


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
