"""Wait until the server's owner lets a proposal be tried."""

from __future__ import annotations

from collections.abc import Callable

from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.safety.consent import Consent, Hindrance
from ml_postgres_optimization.tuning.laboratory import Laboratory

_LOOK_SECONDS = 5.0


class Waiting:
    """Wait for a word, for a window of time, for the end of a pause; the load is observed meanwhile.

    Parameters
    ----------
    laboratory : Laboratory
    tell : callable
        Receives a sentence for each thing that is waited for.
    """

    def __init__(self, laboratory: Laboratory, tell: Callable[[str], None]) -> None:
        self._laboratory = laboratory
        self._tell = tell
        self._told: Hindrance | None = None

    def may_try(self, change: Change, reason: str, *, needed_seconds: float, left_seconds: float) -> bool:
        """Wait until `change` may be tried; False where that is not so in the time that is left.

        Parameters
        ----------
        change : Change
        reason : str
            Why it is proposed.
        needed_seconds : float
            What a trial of it takes at least.
        left_seconds : float
            In which it has to begin.

        Raises
        ------
        ChangeRefused
            If the owner has declined it.
        StateError, TargetError
        """
        consent, clock = self._laboratory.guard.consent, self._laboratory.clock
        if consent is None:
            return True
        end_seconds = clock.monotonic_seconds() + left_seconds
        while found := _hindrance(consent, change, reason, needed_seconds):
            if found != self._told:
                self._told = found
                self._tell(f"{found.reason}; {found.next_step}")
            left = end_seconds - clock.monotonic_seconds()
            if left <= 0 or self._comes_later(found, left):
                return False
            self._laboratory.watch(min(_LOOK_SECONDS, left), change.before, labels={"phase": "waiting"})
        self._told = None
        return True

    def _comes_later(self, found: Hindrance, left_seconds: float) -> bool:
        """Tell whether it is known that the time is over before this ends."""
        if found.ends_at is None:
            return False
        return (found.ends_at - self._laboratory.clock.now()).total_seconds() > left_seconds


def _hindrance(consent: Consent, change: Change, reason: str, needed_seconds: float) -> Hindrance | None:
    # asked first, so that the word may be given while a window is waited for
    asked = consent.ask(change.before, change.after, reason)
    return consent.hindrance(needed_seconds=needed_seconds) or asked
