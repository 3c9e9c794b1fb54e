"""What a soak must hold, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass

from ml_postgres_optimization.telemetry import Window

MINIMUM_SUCCESS_RATIO = 0.995
MAXIMUM_MEAN_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Criterion:
    """One figure, its limit, and whether it was met.

    Parameters
    ----------
    name : str
        ``success ratio``, ``mean response``, …
    found, limit : float
        Both in `unit`.
    unit : str
        ``ratio`` or ``seconds``.
    met : bool
    """

    name: str
    found: float
    limit: float
    unit: str
    met: bool


@dataclass(frozen=True, slots=True)
class Criteria:
    """The limits of a soak.

    Parameters
    ----------
    minimum_success_ratio : float
        Operations that succeeded over operations that were due: what was skipped, or never heard of again, did not
        succeed.
    maximum_mean_seconds : float
        Of the response time, from the intended start.

    References
    ----------
    The defaults, 99.5 % and 5 ms, are the criteria of the specification's extended test.
    """

    minimum_success_ratio: float = MINIMUM_SUCCESS_RATIO
    maximum_mean_seconds: float = MAXIMUM_MEAN_SECONDS

    def judge(self, whole: Window) -> tuple[Criterion, ...]:
        """Compare the merged windows of a run with the limits; a run without operations meets none."""
        due = max(whole.due_total, whole.operations_total + whole.skipped_total)
        success_ratio = (whole.operations_total - whole.failed_total) / due if due else 0.0
        mean_seconds = whole.response.mean_seconds
        return (
            Criterion(
                "success ratio",
                success_ratio,
                self.minimum_success_ratio,
                "ratio",
                success_ratio >= self.minimum_success_ratio,
            ),
            Criterion(
                "mean response",
                mean_seconds,
                self.maximum_mean_seconds,
                "seconds",
                mean_seconds <= self.maximum_mean_seconds,
            ),
        )
