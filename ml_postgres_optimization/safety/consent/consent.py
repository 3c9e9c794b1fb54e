"""What the owner of a server lets us do now: nothing while it is paused, nothing outside of the windows for changes,
and nothing without a word where every proposal needs one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_postgres_optimization.errors import ChangeRefused, NotNow
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.safety.consent.approval import Answer, Approvals
from ml_postgres_optimization.safety.consent.change_window import ChangeWindows
from ml_postgres_optimization.safety.consent.pause import PauseFile
from ml_postgres_optimization.telemetry import Clock

# What is on trial when a window closes is put back within it: a reload takes milliseconds, a restart some seconds.
LEAVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why nothing may be changed now.

    Parameters
    ----------
    reason : str
        A sentence, without its full stop.
    next_step : str
        What ends it.
    ends_at : datetime or None
        When it ends by itself; None where nobody knows.
    """

    reason: str
    next_step: str
    ends_at: datetime | None = None


class Consent:
    """What the owner lets us do.

    Parameters
    ----------
    clock : Clock
    pause : PauseFile, optional
    windows : ChangeWindows, optional
        At any time by default.
    approvals : Approvals, optional
        Given where each proposal needs the owner's word.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        pause: PauseFile | None = None,
        windows: ChangeWindows | None = None,
        approvals: Approvals | None = None,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._windows = windows or ChangeWindows()
        self.approvals = approvals

    def hindrance(self, *, needed_seconds: float = 0.0) -> Hindrance | None:
        """Return why nothing may be begun now that takes `needed_seconds`; None where it may."""
        return self._paused() or self._closed(needed_seconds)

    def seconds_left(self) -> float:
        """Return how long what is begun now may go on; infinite where no window closes within a week."""
        closes_at = self._windows.closes_at(self._now())
        if closes_at is None:
            return math.inf
        return (closes_at - self._now()).total_seconds() - LEAVE_SECONDS

    def fits(self, seconds: float) -> bool:
        """Tell whether any window is long enough for what takes so long."""
        return self._windows.longest_seconds(self._now()) - LEAVE_SECONDS > seconds

    @property
    def windows(self) -> ChangeWindows:
        """When the server may be changed."""
        return self._windows

    def ask(self, before: Configuration, after: Configuration, reason: str) -> Hindrance | None:
        """Have the owner asked whether `after` may be tried; return what is waited for, None where it may be.

        Raises
        ------
        ChangeRefused
            If the owner has declined it.
        StateError
            If that cannot be looked up.
        """
        answer = self.approvals.ask(before, after, reason) if self.approvals else Answer.APPROVED
        if answer is Answer.APPROVED:
            return None
        if answer is Answer.DECLINED:
            raise ChangeRefused(
                f"Configuration {after.id} was declined.", f"genesis-pg approve {after.id} allows it."
            )
        return Hindrance(
            f"configuration {after.id} waits for a word",
            f"genesis-pg approve {after.id}, or genesis-pg decline {after.id}",
        )

    def require(self, configuration: Configuration) -> None:
        """Refuse to put `configuration` in force where the owner does not allow it now.

        Raises
        ------
        NotNow
        """
        self.look()
        if self.approvals and self.approvals.answer_of(configuration) is not Answer.APPROVED:
            raise NotNow(
                f"Configuration {configuration.id} is not approved.",
                f"genesis-pg approve {configuration.id} does it.",
            )

    def look(self, configuration: Configuration | None = None, *, needed_seconds: float = 0.0) -> None:
        """See that what is on trial may stay there, for so long at least.

        Raises
        ------
        NotNow
            The trial has to end now, whatever its blocks say.
        """
        if found := self.hindrance(needed_seconds=needed_seconds):
            raise NotNow(f"{found.reason[0].upper()}{found.reason[1:]}.", f"{found.next_step}.")
        if configuration is None or self.approvals is None:
            return
        if self.approvals.answer_of(configuration) is Answer.DECLINED:
            raise NotNow(f"Configuration {configuration.id} was declined.", "It is put back.")

    def _paused(self) -> Hindrance | None:
        said = self._pause.said() if self._pause else None
        if self._pause is None or said is None:
            return None
        return Hindrance(f"changes are paused{f' ({said})' if said else ''}", "genesis-pg resume lets them go on")

    def _closed(self, needed_seconds: float) -> Hindrance | None:
        now = self._now()
        is_open = self._windows.is_open(now) and self.seconds_left() > needed_seconds
        if is_open:
            return None
        opens_at = self._windows.opens_at(now)
        when = f"; the next one opens at {opens_at.astimezone():%a %Y-%m-%d %H:%M %Z}" if opens_at else ""
        return Hindrance(f"changes are made only {self._windows}{when}", "it is waited for", opens_at)

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC)
