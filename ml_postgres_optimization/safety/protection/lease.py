"""The lease under which a run keeps something on trial: who stands by, and that they hear from us."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import GenesisError, PrivilegeMissing, TargetError
from ml_postgres_optimization.knobs.rendering import written_text
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.safety.journal import KnobChange, Terms
from ml_postgres_optimization.safety.protection.messages import Duty, Orders
from ml_postgres_optimization.safety.protection.watchdog import Watchdog
from ml_postgres_optimization.target.postgres.connection import LastingConnection
from ml_postgres_optimization.target.postgres.guard_session import GuardSession, Reversal
from ml_postgres_optimization.target.postgres.lock import end_sessions, process_of
from ml_postgres_optimization.telemetry import SystemClock

LEASE_SECONDS = 10.0
"""How long those who stand by wait for a sign of life before they act."""

_BEATS_PER_LEASE = 5
_CLOCK = SystemClock()
WATCHDOG, GUARD = "watchdog", "guard session"


class Lease:
    """Those who put back what is on trial when we no longer can, and the thread by which they hear from us.

    A watchdog, a process of its own, always; a guard session inside of the server where that can be had. They are
    armed before anything is written. Both end the session in which settings are changed before they put anything
    back, so that nothing comes from us afterwards.

    Parameters
    ----------
    session : LastingConnection
        In which settings are changed; the optimiser's lock is held in it.
    duty : Duty
        The watchdog's.
    guard : callable
        Opens a guard session; raises `GenesisError` where there can be none.
    on_absence : callable
        Receives why there is no guard session, whenever it turns out that none can be had.

    Notes
    -----
    The thread beats as long as this process runs at all. That a trial hangs shows in how long it takes: `arm` says
    how long that may be.
    """

    def __init__(
        self,
        session: LastingConnection,
        duty: Duty,
        guard: Callable[[], GuardSession],
        *,
        on_absence: Callable[[GenesisError], None],
    ) -> None:
        self._session = session
        self._duty = duty
        self._open_guard = guard
        self._on_absence = on_absence
        self._process: int | None = None
        self._watchdog: Watchdog | None = None
        self._guard: GuardSession | None = None
        self._reversals: tuple[Reversal, ...] = ()
        self._longest_seconds = math.inf
        self._remains = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._can_have_guard = True

    def prepare(self) -> None:
        """Open the guard session already, so that it is known from the beginning where there can be none."""
        if self._guard is not None or not self._can_have_guard:
            return
        try:
            self._guard = self._open_guard()
        except GenesisError as reason:
            # no free connection, for one: another time perhaps
            self._can_have_guard = not isinstance(reason, PrivilegeMissing)
            self._on_absence(reason)

    def arm(self, knobs: Sequence[KnobChange], longest_seconds: float) -> Terms:
        """Have them stand by for these changes, in place of those before, and return who does.

        Parameters
        ----------
        knobs : sequence of KnobChange
            In the order in which they are to be put back.
        longest_seconds : float
            After so long they act even though they hear from us.

        Raises
        ------
        TargetError
            If nobody stands by, or the session in which settings are changed is lost.
        """
        self._reversals = tuple(Reversal(knob.name, written_text(knob.new_value), knob.old_written) for knob in knobs)
        self._longest_seconds = longest_seconds
        return self.ensure(anew=True)

    def ensure(self, *, anew: bool = False) -> Terms:
        """See that they stand by, in the place of whom was lost put another, and return who does.

        Raises
        ------
        TargetError
            If nobody does, or the session in which settings are changed is lost.
        """
        process = self._session.run_bound(process_of, "keep something on trial")
        is_new_session, self._process = process != self._process, process
        self._ensure_watchdog(anew=anew)
        self._ensure_guard(process, anew=anew or is_new_session)
        by = (WATCHDOG, GUARD) if self._guard else (WATCHDOG,)
        return Terms(by, f"{self._session.name}/{process}", self._longest_seconds)

    def disarm(self) -> None:
        """Have them stand by for nothing."""
        self._reversals, self._longest_seconds = (), math.inf
        if self._watchdog:
            self._watchdog.order(Orders())
        if self._guard:
            try:
                self._guard.disarm()
            except TargetError:
                self._drop_guard()

    def remain(self) -> None:
        """Know that something stays on trial which we could not put back: they stand by for it beyond our end."""
        self._remains = True

    def let_restart(self) -> None:
        """Send the guard session home, which would take a restart for our end; the watchdog stays."""
        self._drop_guard()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        if self._reversals or self._remains:
            self._abandon()
            return
        with suppress(GenesisError):
            self._drop_guard()
        if self._watchdog:
            self._watchdog.stand_down()

    def _abandon(self) -> None:
        """Leave those who stand by to what we could not put back: for them we are gone from now on."""
        if self._guard:
            self._guard.leave()
        if self._watchdog:
            self._watchdog.leave()

    def _ensure_watchdog(self, *, anew: bool) -> None:
        if self._watchdog is None or not self._watchdog.stands_by():
            self._replace_watchdog()
            anew = True
        if anew and self._watchdog:
            self._watchdog.order(Orders(self._longest_seconds))

    def _replace_watchdog(self) -> None:
        lost, self._watchdog = self._watchdog, None
        if lost:
            lost.stand_down()
        with deferred_signals():  # none is started that nobody would send home
            self._watchdog = watchdog = Watchdog.start(self._duty)
        if not watchdog.stands_by():
            raise TargetError(
                "The watchdog ended as soon as it was started, or does not answer; nothing was put on trial.",
                "watchdog.log beside the journal says why.",
            )

    def _ensure_guard(self, process: int, *, anew: bool) -> None:
        if self._guard is not None and (anew or not self._guard.stands_by()):
            self._arm_guard(self._guard, process)
        if self._guard is None:
            self.prepare()
            if self._guard is not None:
                self._arm_guard(self._guard, process)

    def _arm_guard(self, guard: GuardSession, process: int) -> None:
        lease_seconds, longest_seconds = self._duty.lease_seconds, self._longest_seconds
        try:
            guard.arm(
                self._session.name,
                process,
                self._reversals,
                lease_seconds=lease_seconds,
                longest_seconds=longest_seconds,
            )
        except TargetError:
            # the server was restarted, or somebody has ended it
            self._drop_guard()

    def _drop_guard(self) -> None:
        """Close the guard session, and see that it is gone: it does not notice by itself that we have left it.

        Raises
        ------
        TargetError
            If that cannot be seen.
        """
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()
            doing = "see that the guard session is gone"
            self._session.run_bound(lambda connection: end_sessions(connection, guard.name, _CLOCK), doing)

    def _beat(self) -> None:
        while not self._is_over.wait(self._duty.lease_seconds / _BEATS_PER_LEASE):
            # the line to the server may hang, which is no reason for the watchdog to hear nothing
            if watchdog := self._watchdog:
                watchdog.beat()
            self._session.beat()
