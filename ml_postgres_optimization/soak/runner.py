"""Run the soak, a window at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.retry.backoff import full_jitter_seconds
from ml_postgres_optimization.soak.criteria import Criteria, Criterion
from ml_postgres_optimization.telemetry import Clock, Recorder, Window, merge
from ml_postgres_optimization.workload import LoadCounters

# How long a server may be away before the soak gives up: longer than a crash recovery or a restart usually takes.
MAXIMUM_OUTAGE_SECONDS = 60.0
# "Running large tests", k6's documentation: keep the generator's CPU below 80 %, else its latencies are doubtful.
BELIEVABLE_CPU_RATIO = 0.8


@dataclass(frozen=True, slots=True)
class SoakPlan:
    """How long to soak, and by what to judge it.

    Parameters
    ----------
    duration_seconds : float
        Positive; the last window may be shorter than the others.
    window_seconds : float
    criteria : Criteria
    labels : mapping of str to str
        Put on every window.
    """

    duration_seconds: float
    window_seconds: float = 10.0
    criteria: Criteria = field(default_factory=Criteria)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SoakResult:
    """What a soak found.

    Parameters
    ----------
    whole : Window or None
        All windows merged, with what the load handed over after its end; None when nothing was seen.
    windows_total, lost_windows_total : int
        Finished windows, and those that an outage of the server took; a lost one is never filled in, but its
        operations count.
    criteria : tuple of Criterion
    interrupted : bool
        Whether it was stopped before its time.
    clients_died_total : int
        Client processes that died; the windows in which they did are void.
    client_cpu_ratio : float
        The largest share of a core that a client process used in a window.
    """

    whole: Window | None
    windows_total: int
    lost_windows_total: int
    criteria: tuple[Criterion, ...]
    interrupted: bool = False
    clients_died_total: int = 0
    client_cpu_ratio: float = 0.0

    @property
    def met(self) -> bool:
        """Whether every criterion was met."""
        return bool(self.criteria) and all(criterion.met for criterion in self.criteria)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against believing the figures, a sentence each."""
        doubts = []
        if self.clients_died_total:
            doubts.append(f"Client processes died: {self.clients_died_total}; what they had not reported is lost.")
        if self.client_cpu_ratio > BELIEVABLE_CPU_RATIO:
            doubts.append(
                f"A client process used {self.client_cpu_ratio:.0%} of a core; above {BELIEVABLE_CPU_RATIO:.0%} it "
                "may itself be what is slow: doubt the response times."
            )
        return tuple(doubts)


class Load(Protocol):
    """Load of our own, as far as a soak needs it."""

    @property
    def counters(self) -> LoadCounters:
        """What it has done so far."""

    def cpu_ratio_since(self, monotonic_seconds: float) -> float:
        """Return the largest share of a core that one of its client processes used since then."""

    def stop(self) -> None:
        """End it, and hand over what it has left."""


def run_soak(
    recorder: Recorder,
    plan: SoakPlan,
    *,
    configuration_id: str,
    clock: Clock,
    on_window: Callable[[Window, float], None],
    load: Load | None = None,
) -> SoakResult:
    """Record windows for the plan's duration, stop the load, and judge all that was due together.

    What is due and unanswered at the end is taken from the load once it has stopped: as failed where it was running,
    as skipped where it had not begun.

    Parameters
    ----------
    recorder : Recorder
        Fed by `load`.
    on_window : callable
        Receives each finished window and the share of the duration that is over (0 to 1).
    load : Load, optional
        Running; it is stopped at the end of the duration, or at Ctrl-C. Without one the samples are judged as they
        come.

    Raises
    ------
    ServerUnreachable
        If the server stays away for more than `MAXIMUM_OUTAGE_SECONDS`.
    """
    course = _Course(recorder, plan, configuration_id, clock, load)
    interrupted = False
    try:
        course.run(on_window)
    except KeyboardInterrupt:
        interrupted = True
    course.finish()
    return SoakResult(
        whole=course.whole,
        windows_total=course.windows_total,
        lost_windows_total=course.lost_windows_total,
        criteria=plan.criteria.judge(course.whole) if course.whole else (),
        interrupted=interrupted,
        clients_died_total=load.counters.died_total if load else 0,
        client_cpu_ratio=course.client_cpu_ratio,
    )


class _Course:
    """One soak's way from its first window to the end of its load."""

    def __init__(
        self, recorder: Recorder, plan: SoakPlan, configuration_id: str, clock: Clock, load: Load | None
    ) -> None:
        self._recorder = recorder
        self._plan = plan
        self._configuration_id = configuration_id
        self._clock = clock
        self._load = load
        self.whole: Window | None = None
        self.windows_total = self.lost_windows_total = 0
        self.client_cpu_ratio = 0.0

    def run(self, on_window: Callable[[Window, float], None]) -> None:
        plan, clock = self._plan, self._clock
        started = clock.monotonic_seconds()
        while (left := started + plan.duration_seconds - clock.monotonic_seconds()) > 0.05:
            began = clock.monotonic_seconds()
            window = _window_or_outage(
                self._recorder, min(plan.window_seconds, left), self._configuration_id, plan.labels, clock
            )
            self._look_at_clients(began)
            if window is None:
                self.lost_windows_total += 1
                continue
            self._add(window)
            self.windows_total += 1
            on_window(window, min(1.0, (clock.monotonic_seconds() - started) / plan.duration_seconds))

    def finish(self) -> None:
        """Stop the load, and count what it still hands over."""
        if self._load:
            self._load.stop()
        last = self._recorder.finish(configuration_id=self._configuration_id, labels=self._plan.labels)
        if last:
            self._add(last)

    def _add(self, window: Window) -> None:
        # merged at once: a window takes some 300 kB, and there are 26,000 of them in three days
        self.whole = merge(self.whole, window) if self.whole else window

    def _look_at_clients(self, since_seconds: float) -> None:
        if self._load:
            self.client_cpu_ratio = max(self.client_cpu_ratio, self._load.cpu_ratio_since(since_seconds))


def _window_or_outage(
    recorder: Recorder, seconds: float, configuration_id: str, labels: Mapping[str, str], clock: Clock
) -> Window | None:
    """Record a window; where the server is away, wait until it answers again and return None."""
    gave_up_at = clock.monotonic_seconds() + MAXIMUM_OUTAGE_SECONDS
    attempt = 0
    while True:
        try:
            if attempt:
                recorder.begin()
                return None
            return recorder.record(seconds, configuration_id=configuration_id, labels=labels)
        except ServerUnreachable:
            if clock.monotonic_seconds() > gave_up_at:
                raise
            attempt += 1
            clock.sleep(full_jitter_seconds(attempt, base_seconds=0.2, cap_seconds=5.0))
