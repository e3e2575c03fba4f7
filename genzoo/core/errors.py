"""The errors that people may read."""


class GenzooError(Exception):
    """User error; the message is one line that says what was wrong and what to change."""


class NoLikelihood(GenzooError):
    """Raised by `log_likelihood` of a family that defines no probability of an image (a GAN, say)."""


class InvalidValue(GenzooError, ValueError):
    """An argument, or a field of a configuration, that has no such value."""
