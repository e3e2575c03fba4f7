"""A question that an evaluation asks: whom it concerns, how it is answered, and how the answer is shown."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.metrics.estimate import Estimate


class Section(ABC):
    """One question. `name` is the field of `genzoo.evaluation.report.schema.Report` that holds the answer."""

    name: str
    of_samples: bool = False
    """Whether it looks at samples and pictures alone, whatever the likelihoods are."""
    table: str = ""
    """The title of a table of its own, for figures that belong beside no others."""

    @abstractmethod
    def applies(self, case: Case | EncoderCase) -> bool:
        """Whether it concerns this model and these images."""

    @abstractmethod
    def measure(self, case: Any) -> Any:
        """The answer, of a type of the schema.

        Raises `NoLikelihood` where it takes a likelihood and there is none, `GenzooError` where something is amiss.
        """

    def rows(self, result: Any) -> dict[str, str]:
        """The answer as rows of a table."""
        return {}

    def pictures(self, result: Any) -> Sequence[str]:
        """The files that go with the answer."""
        return ()


def with_interval(figure: Estimate, digits: int) -> str:
    """A figure and its 95% interval.

    >>> with_interval(Estimate(0.98, 0, 400, low=0.961, high=0.9899), 3)
    '0.980 [0.961, 0.990]'
    """
    text = f"{figure.value:.{digits}f}"
    return text if figure.low is None else f"{text} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def with_error(value: float, stderr: float | None, digits: int) -> str:
    """A figure and its standard error.

    >>> with_error(1.23456, 0.012, 3), with_error(1.0, None, 1)
    ('1.235 ± 0.012', '1.0')
    """
    return f"{value:.{digits}f}" + ("" if stderr is None else f" ± {stderr:.{digits}f}")
