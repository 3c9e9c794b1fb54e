"""The ledger beside a run: taken before its load, looked at in every interval, settled at the end; and the plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.soak.interval import Event, EventKind, IntervalState
from ml_postgres_optimization.soak.journal import Ending, RunState, Totals
from ml_postgres_optimization.telemetry import SystemClock
from ml_postgres_optimization.workload.accounting import Ledger, QueryPlan, QueryPlans, Recycling

# As often as everything else that is dear to read.
_PLANS_SECONDS = 60.0


class Accounts:
    """What is looked at in the ledger's session, and when.

    Parameters
    ----------
    session : Session
    ledger : Ledger
        Taken.
    scale : float
        Of the tables.
    plans : QueryPlans, optional
        Looked at once a minute; what becomes of them is told.
    """

    def __init__(self, session: Session, ledger: Ledger, scale: float, plans: QueryPlans | None = None) -> None:
        self._session = session
        self._ledger = ledger
        self._recycling = Recycling(ledger, scale)
        self._plans = plans
        self._plans_before: Mapping[str, QueryPlan] = {}
        self._clock = SystemClock()
        self._plans_due_seconds = 0.0
        self._events: list[Event] = []

    def take_over(self, state: RunState) -> None:
        """Check what the last runner has left behind; the most it can be is known only where it left in good order.

        Raises
        ------
        IntegrityViolated
        ServerUnreachable, TargetError
        """
        if not state.epoch:
            return
        totals, was_left = state.totals, state.ending is Ending.STOPPED
        committed = self._ledger.check(
            totals.written_total, totals.unclear_at_most if was_left else None, epoch=state.epoch
        )
        self._ledger.check_balance()
        unreported = committed - totals.written_total
        self._tell(
            f"The ledger holds all {totals.written_total:,} operations that were acknowledged, and {unreported:,} "
            "that were not heard of; balances add up."
        )

    def review(self, state: IntervalState, totals: Totals) -> None:
        """Look whether all that was acknowledged is there, and keep the tables to their size."""
        if state is IntervalState.SERVER_DOWN:
            return
        self._quietly(lambda: self._ledger.check(totals.written_total))
        self._quietly(self._recycling.run)
        if self._plans is not None and self._clock.monotonic_seconds() >= self._plans_due_seconds:
            self._plans_due_seconds = self._clock.monotonic_seconds() + _PLANS_SECONDS
            self._look_at(self._plans)

    def settle(self, totals: Totals) -> str | None:
        """See that the ledger balances now that all is reported; return why it cannot be seen now.

        Raises
        ------
        IntegrityViolated
        """

        def settled() -> None:
            self._ledger.check(totals.written_total, totals.unclear_at_most)
            self._ledger.check_balance()

        return self._quietly(settled)

    def events(self) -> tuple[Event, ...]:
        """Return what there is to tell since the last call."""
        told, self._events = tuple(self._events), []
        return told

    def _look_at(self, plans: QueryPlans) -> None:
        """Tell which plans are not what they were; at first, what all of them are."""
        try:
            now = plans.look()
        except TargetError as error:  # a table is locked, say: in a minute
            self._session.log.warning("plans", what=error.what)
            return
        before, self._plans_before = self._plans_before, now
        if not before:
            told = ", ".join(f"{name} {plan.hash}" for name, plan in now.items())
            self._tell(f"Plans of the load's statements: {told}.", EventKind.RUNNER)
        for name, plan in now.items():
            if name in before and before[name] != plan:
                change = f"{before[name].nodes} ({before[name].hash}) → {plan.nodes} ({plan.hash})"
                self._tell(f"The plan of {name} has changed: {change}.", EventKind.PLAN)

    def _quietly(self, look: Callable[[], object]) -> str | None:
        """Look, where the server is there; what it cannot answer now it will be asked again: return why."""
        try:
            look()
        except TargetError as error:
            self._tell(f"The ledger could not be looked at: {error.what}")
            self._session.log.warning("ledger", what=error.what)
            return error.what
        return None

    def _tell(self, text: str, kind: EventKind = EventKind.INTEGRITY) -> None:
        self._events.append(Event(kind, text, self._clock.now()))
