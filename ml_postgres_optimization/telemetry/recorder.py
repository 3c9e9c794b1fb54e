"""Turn a running server into a stream of windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ml_postgres_optimization.telemetry.clock import Clock
from ml_postgres_optimization.telemetry.sample import SampleBatch
from ml_postgres_optimization.telemetry.snapshot import ActivitySample, Collector, Snapshot
from ml_postgres_optimization.telemetry.window import Window, between

Subscriber = Callable[[Window], None]
SampleSource = Callable[[], Sequence[SampleBatch]]
ACTIVITY_INTERVAL_SECONDS = 1.0


def no_samples() -> Sequence[SampleBatch]:
    """Stand in for a load generator where the sessions are not ours."""
    return ()


class Recorder:
    """Record one window after the other, and hand each to every subscriber.

    Parameters
    ----------
    collector : Collector
        The server to observe.
    clock : Clock
    samples : callable, optional
        Gives the operations that finished since it was last asked.
    subscribers : sequence of callables
        Each receives every finished window, in this order.

    Notes
    -----
    Not thread safe: one thread records. A snapshot ends one window and begins the next, so that nothing
    falls between two windows recorded one after the other.
    """

    def __init__(
        self,
        collector: Collector,
        clock: Clock,
        *,
        samples: SampleSource = no_samples,
        subscribers: Sequence[Subscriber] = (),
    ) -> None:
        self._collector = collector
        self._clock = clock
        self._samples = samples
        self._subscribers = tuple(subscribers)
        self._last: Snapshot | None = None
        self._finished: list[SampleBatch] = []

    def discard(self) -> None:
        """Forget what happened since the last window: the time after a switch belongs to nobody."""
        self._samples()
        self._finished.clear()
        self._last = None

    def begin(self) -> None:
        """Take the snapshot that the next window begins with; the operations since the last one stay in it.

        Raises
        ------
        ServerUnreachable
        """
        self._last = self._collector.snapshot()

    def record(
        self, duration_seconds: float, *, configuration_id: str, labels: Mapping[str, str] | None = None
    ) -> Window:
        """Observe for `duration_seconds`, sampling activity once a second, and return the window.

        Raises
        ------
        ServerUnreachable
            If the server goes away. The window is lost; its operations, the failed ones above all, are counted in
            the next one.
        """
        before, self._last = self._last or self._collector.snapshot(), None
        activity = self._observe(before.monotonic_seconds + duration_seconds)
        after = self._collector.snapshot()
        self._finished.extend(self._samples())
        batches, self._finished, self._last = self._finished, [], after
        window = between(
            before,
            after,
            configuration_id=configuration_id,
            labels=labels,
            batches=batches,
            activity=activity,
        )
        for subscriber in self._subscribers:
            subscriber(window)
        return window

    def _observe(self, until_seconds: float) -> list[ActivitySample]:
        activity: list[ActivitySample] = []
        while (left := until_seconds - self._clock.monotonic_seconds()) > 0:
            self._clock.sleep(min(ACTIVITY_INTERVAL_SECONDS, left))
            activity.append(self._collector.activity())
            self._finished.extend(self._samples())
        return activity
