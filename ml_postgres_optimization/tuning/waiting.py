"""Wait until the server's owner lets a proposal be tried."""

from __future__ import annotations

from collections.abc import Callable

from ml_postgres_optimization.errors import ChangeRefused, NotNow
from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.safety.consent import Consent, Hindrance
from ml_postgres_optimization.trials import Trial
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

    def hold(
        self,
        hold: Callable[[], Trial],
        change: Change,
        reason: str,
        *,
        needed_seconds: float,
        left_seconds: Callable[[], float],
    ) -> Trial | None:
        """Hold a trial of `change` as soon as it is allowed, and anew where a halt is called in the middle.

        Parameters
        ----------
        hold : callable
            Holds it.
        change : Change
        reason : str
            Why it is proposed.
        needed_seconds : float
            What it takes at least.
        left_seconds : callable
            Returns what is left by now.

        Returns
        -------
        Trial or None
            None where nothing of it could be decided in the time that was left.

        Raises
        ------
        ChangeRefused
            As `may_try` does, or if the guard or the server refuses it.
        StateError, TargetError, JournalError
        """
        while self.may_try(
            change, reason, needed_seconds=needed_seconds, left_seconds=max(0.0, left_seconds() - needed_seconds)
        ):
            try:
                return hold()
            except NotNow as halt:
                self._tell(f"{halt.what} What was on trial is put back, and tried anew when it may be")
        return None

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
            If the owner has declined it, or no window is long enough for it.
        StateError, TargetError
        """
        consent, clock = self._laboratory.guard.consent, self._laboratory.clock
        if consent is None:
            return True
        if not consent.fits(needed_seconds):
            raise ChangeRefused(
                f"A trial of it takes {needed_seconds:.0f} s at least, and no window for changes ({consent.windows}) "
                "is as long.",
                "Choose a longer --window.",
            )
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
    asked, found = consent.ask(change.before, change.after, reason), consent.hindrance(needed_seconds=needed_seconds)
    if asked and found:
        return Hindrance(f"{asked.reason}, and {found.reason}", asked.next_step, found.ends_at)
    return asked or found
