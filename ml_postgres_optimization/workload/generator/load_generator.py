"""Drive load from processes of its own, and hand over every operation's times."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.telemetry import SampleBatch
from ml_postgres_optimization.workload.generator.admission import admit
from ml_postgres_optimization.workload.generator.child import check_picklable
from ml_postgres_optimization.workload.generator.counters import LoadCounters
from ml_postgres_optimization.workload.generator.crew import Crew
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.plan import LoadArm, LoadPlan

_RECENT_SECONDS = 1.0
_LEAST_TO_DIVIDE = 2


class LoadGenerator:
    """Load on the tables of `create_tables`, offered by client processes until it is stopped.

    Parameters
    ----------
    dsn : str
        Where the tables are.
    plan : LoadPlan

    Raises
    ------
    UsageError
        If the server has too few free connections, or refuses a session setting; or the rate shape cannot be sent
        to another process.
    SchemaMissing
        If the tables are not there.
    ServerUnreachable, AuthenticationFailed, SchemaForeign, TargetError

    Notes
    -----
    A context manager: the load begins when it is entered, with all connections open, and ends when it is left. What
    is changed meanwhile takes effect within 0.5 s. The number of sessions on the server is that of `connections`:
    those beyond a lower limit are closed, not kept idle, so that a limit costs what it says.

    One thread may use it; another, of its own, listens to the processes. They end with their parent, however
    that ends; one that dies is started again, and counted.

    Examples
    --------
    ::

        with LoadGenerator(dsn, LoadPlan(SOAK_MIX, rate_per_second=1000, connections=8)) as load:
            time.sleep(10)
            batches = load.samples()
    """

    def __init__(self, dsn: str, plan: LoadPlan) -> None:
        check_picklable(plan)
        self._plan = plan
        self._admission = admit(dsn, plan)
        self._crew = Crew(self._admission, plan)

    @property
    def plan(self) -> LoadPlan:
        """What is offered now, with every change so far."""
        return self._plan

    @property
    def started_at_seconds(self) -> float:
        """Monotonic time that the schedule counts from; 0 before the start."""
        return self._crew.started_at_seconds

    @property
    def counters(self) -> LoadCounters:
        """What the load has done since its start, as far as it is reported (`LoadPlan.report_seconds`)."""
        return self._crew.counters

    @property
    def failed(self) -> bool:
        """Whether a client process has died since the start; what it had not reported is lost."""
        return self._crew.last_failure is not None

    @property
    def last_failure(self) -> str | None:
        """Why a client process died, the last time that one did."""
        return self._crew.last_failure

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The client processes that are running."""
        return self._crew.process_ids

    @property
    def concurrency_limit(self) -> int | None:
        """How many operations at once the limiters of all processes found to be best; None without `LoadLimiter`."""
        return self._crew.concurrency_limit

    @property
    def cpu_ratio(self) -> float:
        """The largest share of a core that a client process used in the last second.

        Above 0.8 the client itself may be what is slow: do not believe its latencies.

        References
        ----------
        "Running large tests", k6's documentation: keep the generator's CPU below 80 %.
        """
        return self.cpu_ratio_since(time.monotonic() - _RECENT_SECONDS)

    def cpu_ratio_since(self, monotonic_seconds: float) -> float:
        """Return what `cpu_ratio` does, over the time since then; over ten minutes at most."""
        return self._crew.cpu_ratio(monotonic_seconds)

    def samples(self) -> Sequence[SampleBatch]:
        """Return what was reported since the last call, without waiting; after the end, all that is left.

        What nobody takes is kept: about 40 bytes for each operation, and 1 kB for each report.
        The last batch says up to when they are complete.
        """
        batches = self._crew.batches
        return [batches.popleft() for _ in range(len(batches))]

    def set_connections(self, connections: int) -> None:
        """Let so many operations run at once from now on.

        Raises
        ------
        UsageError
            If it is no positive number, or the server had fewer free when the load was made.
        """
        changed = replace(self._plan, connections=connections)
        self._admission.check_connections(connections)
        self._change(changed)

    def hold_below(self, ceiling: int | None) -> None:
        """Have no more than `ceiling` operations at work from now on, `retry.Prior.ceiling` for one; None lifts it.

        Unlike `set_connections` it closes no session, so that putting it back costs nothing, and what a limiter has
        learnt counts again then. Of several client processes, and arms in them, each has one at least.

        Raises
        ------
        UsageError
            If it is no positive number.
        """
        self._change(replace(self._plan, ceiling=ceiling))

    def set_rate(self, rate_per_second: float) -> None:
        """Offer so many operations per second from now on; 0 for a pause.

        Raises
        ------
        UsageError
            If it is negative or no number, or the load is a closed loop.
        """
        changed = replace(self._plan, rate_per_second=rate_per_second)
        if not (self._plan.is_open_loop and changed.is_open_loop):
            raise UsageError(
                f"A rate of {rate_per_second} would turn an open loop into a closed one, or the reverse.",
                "Make another LoadGenerator.",
            )
        self._change(changed)

    def set_mix(self, mix: Mix) -> None:
        """Offer operations of this mix from now on; in the open loop, what is due already stays as it is."""
        self._change(replace(self._plan, mix=mix))

    def pause(self) -> None:
        """Offer nothing from now on, and close every session as soon as its operation has ended.

        A server can then be restarted without an operation of ours being lost on the way.
        """
        self._change(replace(self._plan, is_paused=True))

    def resume(self) -> None:
        """Open the sessions again, and offer what was offered before the pause."""
        self._change(replace(self._plan, is_paused=False))

    def can_divide(self, settings: Mapping[str, str]) -> bool:
        """Tell whether `divide` can be asked to SET these: in the open loop, with sessions and leave to do so."""
        if not self._plan.is_open_loop or self._plan.connections < _LEAST_TO_DIVIDE:
            return False
        return self._admission.refusal_of(settings) is None

    def divide(self, arms: Sequence[LoadArm]) -> None:
        """Let each arm have its part of the sessions and of the operations from now on, drawn by lot at each call.

        Samples say whose they are. Without arms, all sessions are as they were at the beginning. Either way they plan
        every statement anew.

        Raises
        ------
        UsageError
            If there are fewer connections than arms, or the load is a closed loop: its clients would leave a fast arm
            for the queue of a slow one.
        """
        if arms and not self._plan.is_open_loop:
            raise UsageError("A closed loop cannot be divided.", "Offer a rate.")
        self._plan = replace(self._plan, arms=tuple(arms))
        self._crew.change(self._plan, begins_turn=True)

    def replan(self) -> None:
        """Have every session plan its statements anew, as a new session would under settings that have changed."""
        self._crew.change(self._plan, begins_turn=True)

    def start(self) -> Self:
        """Connect and begin.

        Raises
        ------
        ServerUnreachable, AuthenticationFailed, PrivilegeMissing, UsageError, TargetError
        """
        self._crew.start()
        return self

    def stop(self) -> None:
        """End: what is queued is skipped, what is running may finish for `LoadPlan.drain_seconds`."""
        self._crew.stop(self._plan.drain_seconds)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _change(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._crew.change(plan)
