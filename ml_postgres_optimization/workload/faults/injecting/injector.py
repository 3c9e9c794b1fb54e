"""Faults beside a load, by a schedule."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.telemetry import Clock, SystemClock
from ml_postgres_optimization.workload.faults.fault import FaultKind
from ml_postgres_optimization.workload.faults.ground import FaultGround
from ml_postgres_optimization.workload.faults.injecting.run import FaultRecord, FaultRun, Tell
from ml_postgres_optimization.workload.faults.injecting.schedule import Agenda, FaultSchedule, Occurrence

_LOOK_SECONDS = 0.05
PassedOver = Callable[[FaultKind, str], None]


class FaultInjector:
    """Runs a schedule of faults in a thread of its own; a context.

    Parameters
    ----------
    schedule : FaultSchedule
    ground : FaultGround
    operations : callable, optional
        Returns how many operations the load has done, where the schedule counts them:
        ``lambda: load.counters.succeeded_total + load.counters.failed_total``.
    tell : callable, optional
        Receives the record of each fault when it is in force, and again when it has ended; in any thread.
    passed_over : callable, optional
        Receives the kind of each fault that was due and did not happen, and why; in the injector's thread.
    clock : Clock
        For when faults are due.
    elapsed_seconds : float
        How far the schedule has come when it begins: for one that goes on where another has ended. What came due
        before, by the clock, is nobody's.

    Attributes
    ----------
    passed_over_total : int
        Faults that were due and did not happen: while as many as may be were under way, and those that strike the
        server itself while another such one was.
    last_passed_over : str or None
        Which it was, and why.
    last_failure : str or None
        The last thing that went wrong with the injector itself, or with who is told; the load goes on, and so do the
        faults where they can.

    Raises
    ------
    UsageError
        If the ground lacks what a fault needs, or the operations are not known.

    Examples
    --------
    ::

        schedule = FaultSchedule((FaultRate(Termination(), per_minute=6.0),), seconds=600.0, seed=7)
        with LoadGenerator(dsn, plan) as load, FaultInjector(schedule, FaultGround(dsn, plan)) as injector:
            time.sleep(600)
        print(injector.records)
    """

    def __init__(
        self,
        schedule: FaultSchedule,
        ground: FaultGround,
        *,
        operations: Callable[[], int] | None = None,
        tell: Tell | None = None,
        passed_over: PassedOver | None = None,
        clock: Clock | None = None,
        elapsed_seconds: float = 0.0,
    ) -> None:
        schedule.check(ground)
        if schedule.counts_operations and operations is None:
            raise UsageError("Faults come by operations, and nobody counts them.", "Give `operations`.")
        self._schedule = schedule
        self._ground = ground
        self._operations = operations or (lambda: 0)
        self._tell = tell
        self._clock = clock or SystemClock()
        self._passed_over = passed_over
        self._elapsed_seconds = elapsed_seconds
        self._agenda = Agenda(schedule, elapsed_seconds)
        self._under_way: list[FaultRun] = []
        self._operations_before = 0
        self._ended: list[FaultRecord] = []
        self._state = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._inject, name="fault-injector", daemon=False)
        self.passed_over_total = 0
        self.last_passed_over: str | None = None
        self.last_failure: str | None = None

    @property
    def records(self) -> tuple[FaultRecord, ...]:
        """Every fault that was begun so far; those that have ended first."""
        with self._state:
            return (*self._ended, *(run.record for run in self._under_way))

    @property
    def has_ended(self) -> bool:
        """Whether the schedule's end has come, or it was stopped, and everything is put back."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> Self:
        """Begin; the schedule counts from now."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End, with every fault that is under way; return when everything is put back. Harmless when it has ended."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _inject(self) -> None:
        started_seconds = self._clock.monotonic_seconds() - self._elapsed_seconds
        # a load that has run before has its own beginning
        self._operations_before = self._operations_total()
        try:
            while not self._stopping.is_set() and threading.main_thread().is_alive():
                seconds = self._clock.monotonic_seconds() - started_seconds
                if seconds >= self._schedule.seconds:
                    break
                self._begin_due(seconds)
                until_next = min(self._agenda.next_seconds, self._schedule.seconds) - seconds
                self._stopping.wait(min(_LOOK_SECONDS, max(0.0, until_next)))
        except Exception as error:  # whatever it is, the load must not hear of it
            self._note(error)
        finally:
            for run in self._under_way:
                run.ask_to_end()
            for run in self._under_way:
                run.wait()

    def _begin_due(self, seconds: float) -> None:
        for occurrence in self._agenda.take(seconds, self._operations_total() - self._operations_before):
            self._forget_ended()
            kind = self._schedule.rates[occurrence.place].fault.kind
            if reason := self._reason_to_pass_over(kind):
                self.passed_over_total += 1
                self.last_passed_over = f"{kind}: {reason}"
                self._tell_passed_over(kind, reason)
            else:
                self._begin(occurrence)

    def _reason_to_pass_over(self, kind: FaultKind) -> str | None:
        if len(self._under_way) >= self._schedule.most_at_once:
            return f"{len(self._under_way)} were under way, as many as may be at once"
        others = [run.record.fault.kind for run in self._under_way if run.record.fault.kind.is_of_the_server]
        return f"{others[0]} was under way on the same server" if kind.is_of_the_server and others else None

    def _forget_ended(self) -> None:
        """Keep only the records of those that have ended: a soak has many thousands."""
        with self._state:
            self._ended += [run.record for run in self._under_way if run.has_ended]
            self._under_way = [run for run in self._under_way if not run.has_ended]

    def _begin(self, occurrence: Occurrence) -> None:
        fault = self._schedule.rates[occurrence.place].fault
        run = FaultRun(fault, self._ground, seed=occurrence.seed, tell=self._pass_on).start()
        with self._state:
            self._under_way.append(run)

    def _operations_total(self) -> int:
        try:
            return self._operations()
        except Exception as error:  # anybody's code
            self._note(error)
            return 0

    def _pass_on(self, record: FaultRecord) -> None:
        if self._tell is not None:
            try:
                self._tell(record)
            except Exception as error:  # anybody's code
                self._note(error)

    def _tell_passed_over(self, kind: FaultKind, reason: str) -> None:
        if self._passed_over is not None:
            try:
                self._passed_over(kind, reason)
            except Exception as error:  # anybody's code
                self._note(error)

    def _note(self, error: Exception) -> None:
        self.last_failure = f"{type(error).__name__}: {error}"
