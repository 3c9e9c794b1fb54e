"""What came of one criterion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Whether a criterion was held."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "not decidable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One criterion and what was found.

    Parameters
    ----------
    name : str
        Key of the criteria file.
    title : str
        What is asked, as a reader would say it.
    outcome : Outcome
    found, limit : str
        With units, for reading.
    evidence : str
        What the finding stands on, in sentences.
    found_value, limit_value : float or None
        The same as numbers, in SI units, where there is one number.
    """

    name: str
    title: str
    outcome: Outcome
    found: str
    limit: str
    evidence: str
    found_value: float | None = None
    limit_value: float | None = None
