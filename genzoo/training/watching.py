"""What looks at a model while it trains, kept from ending the run: what it cannot see it says, and training goes on."""

from typing import final

from typing_extensions import override

from genzoo.core.attempts import Attempts
from genzoo.core.trainable import Monitor, Observation, RunContext, Trainable


def watchers(model: Trainable, run: RunContext) -> list[Monitor]:
    """The model's monitors, none of which raises."""
    attempts = Attempts()
    found = attempts("monitors", lambda: model.monitors(run))
    if found is None:
        return [_Silent(attempts.missing["monitors"])]
    return [_Tolerant(monitor) for monitor in found]


@final
class _Tolerant(Monitor):
    """Another monitor; the reason why it sees nothing is told once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.optional, self.what = monitor, monitor.optional, monitor.what
        self._told: str | None = None

    @override
    def affordable(self, seconds: float) -> bool:
        return self.monitor.affordable(seconds)

    @override
    def at_validation(self, model: Trainable, step: int) -> Observation:
        attempts = Attempts()
        seen = attempts(self.what, lambda: self.monitor.at_validation(model, step))
        model.eval()
        if seen is not None:
            return seen
        reason = attempts.missing[self.what]
        if reason == self._told:
            return Observation()
        self._told = reason
        return Observation(message=f"{self.what}: none: {reason}")


@final
class _Silent(Monitor):
    """In the place of monitors that could not be made."""

    what = "monitors"

    def __init__(self, reason: str) -> None:
        self._reason: str | None = reason

    @override
    def at_validation(self, model: Trainable, step: int) -> Observation:
        reason, self._reason = self._reason, None
        return Observation() if reason is None else Observation(message=f"{self.what}: none: {reason}")
