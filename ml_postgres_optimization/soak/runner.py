"""Run the soak, a window at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.retry.backoff import full_jitter_seconds
from ml_postgres_optimization.soak.criteria import Criteria, Criterion
from ml_postgres_optimization.telemetry import Clock, Recorder, Window, merge

# How long a server may be away before the soak gives up: longer than a crash recovery or a restart usually takes.
MAXIMUM_OUTAGE_SECONDS = 60.0


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
        All windows merged; None when none was finished.
    windows_total, lost_windows_total : int
        Finished windows, and those that an outage of the server took; a lost one is never filled in.
    criteria : tuple of Criterion
    interrupted : bool
        Whether it was stopped before its time.
    """

    whole: Window | None
    windows_total: int
    lost_windows_total: int
    criteria: tuple[Criterion, ...]
    interrupted: bool = False

    @property
    def met(self) -> bool:
        """Whether every criterion was met."""
        return bool(self.criteria) and all(criterion.met for criterion in self.criteria)


def run_soak(
    recorder: Recorder,
    plan: SoakPlan,
    *,
    configuration_id: str,
    clock: Clock,
    on_window: Callable[[Window, float], None],
) -> SoakResult:
    """Record windows for the plan's duration and judge them together.

    Parameters
    ----------
    recorder : Recorder
        Fed by a running load generator.
    on_window : callable
        Receives each finished window and the share of the duration that is over (0 to 1).

    Raises
    ------
    ServerUnreachable
        If the server stays away for more than `MAXIMUM_OUTAGE_SECONDS`.
    """
    whole: Window | None = None
    recorded, lost, interrupted = 0, 0, False
    started = clock.monotonic_seconds()
    try:
        while (left := started + plan.duration_seconds - clock.monotonic_seconds()) > 0.05:
            window = _window_or_outage(recorder, min(plan.window_seconds, left), configuration_id, plan.labels, clock)
            if window is None:
                lost += 1
                continue
            # merged at once: a window takes some 300 kB, and there are 26,000 of them in three days
            whole = merge(whole, window) if whole else window
            recorded += 1
            on_window(window, min(1.0, (clock.monotonic_seconds() - started) / plan.duration_seconds))
    except KeyboardInterrupt:
        interrupted = True
    return SoakResult(
        whole=whole,
        windows_total=recorded,
        lost_windows_total=lost,
        criteria=plan.criteria.judge(whole) if whole else (),
        interrupted=interrupted,
    )


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
