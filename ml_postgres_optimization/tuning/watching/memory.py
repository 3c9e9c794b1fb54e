"""Loads on which a campaign has come to its end: when one of them is back, nothing has to be searched again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.tuning.watching.reading import Reading
from ml_postgres_optimization.tuning.watching.usual import Profile

_MOST_KNOWN = 16


@dataclass(frozen=True, slots=True)
class KnownLoad:
    """A load, and what was in force when it was left.

    Parameters
    ----------
    name : str
        Of its study.
    profile : Profile
    incumbent : Configuration
    """

    name: str
    profile: Profile
    incumbent: Configuration


class LoadMemory:
    """The last loads that were tuned; of more than 16 the oldest is forgotten."""

    def __init__(self) -> None:
        self._known: list[KnownLoad] = []

    def keep(self, load: KnownLoad) -> None:
        """Remember `load`, in the place of what was known of it."""
        others = [known for known in self._known if known.name != load.name]
        self._known = [*others, load][-_MOST_KNOWN:]

    def recognise(self, readings: Sequence[Reading]) -> KnownLoad | None:
        """Return the load that most of `readings` are of, the latest first; None where none is."""
        for known in reversed(self._known):
            if 2 * sum(known.profile.fits(reading) for reading in readings) > len(readings):
                return known
        return None
