"""Turn a running server into a stream of windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import reduce

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.telemetry.clock import Clock
from ml_postgres_optimization.telemetry.sample import SampleBatch
from ml_postgres_optimization.telemetry.snapshot import ActivitySample, Collector, Snapshot
from ml_postgres_optimization.telemetry.window import Window, between, merge

Subscriber = Callable[[Window], None]
SampleSource = Callable[[], Sequence[SampleBatch]]
EachSecond = Callable[[], None]
OnTrouble = Callable[[Exception], None]
ACTIVITY_INTERVAL_SECONDS = 1.0
# The load generator reports every 0.2 s; a client process that is late by five reports is not waited for.
_LONGEST_WAIT_FOR_REPORTS_SECONDS = 1.0
_REPORT_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Span:
    """All that was seen between two snapshots."""

    before: Snapshot
    after: Snapshot
    activity: Sequence[ActivitySample]
    batches: Sequence[SampleBatch]

    def window(self, configuration_id: str, labels: Mapping[str, str] | None, *, arm: str | None = None) -> Window:
        """Return the window of everybody's operations, or of those of one arm."""
        return between(
            self.before,
            self.after,
            configuration_id=configuration_id,
            labels=labels,
            batches=[batch for batch in self.batches if arm in (None, batch.arm)],
            activity=self.activity,
        )


def _nothing() -> None:
    """Stand in for somebody who wants to look each second."""


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
        Gives the operations that finished since it was last asked. It may be behind, if its batches, an empty one at
        its start to begin with, say up to when they are complete (`SampleBatch.complete_until_seconds`).
    subscribers : sequence of callables
        Each receives every finished window, in this order.
    activity_seconds : float
        How often activity is looked at; seldomer in simulations of days.
    unbroken : callable, optional
        Gives a context in which no Ctrl-C comes: between the source and the recorder it would lose samples.

    Notes
    -----
    Not thread safe: one thread records. A snapshot ends one window and begins the next, so that nothing
    falls between two windows recorded one after the other.

    An operation is counted in the window in which it ended, by the snapshots' monotonic time, whenever it is
    reported; a source that is behind is waited for, a second at most. What is reported later still is counted in the
    next window. What has not ended when a window does is not seen by it: after `discard`, by none.
    """

    def __init__(
        self,
        collector: Collector,
        clock: Clock,
        *,
        samples: SampleSource = no_samples,
        subscribers: Sequence[Subscriber] = (),
        activity_seconds: float = ACTIVITY_INTERVAL_SECONDS,
        unbroken: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._collector = collector
        self._clock = clock
        self._samples = samples
        self._subscribers = tuple(subscribers)
        self._activity_seconds = activity_seconds
        self._unbroken = unbroken
        self._last: Snapshot | None = None
        self._untold: list[SampleBatch] = []
        self._complete_until_seconds = math.inf
        self._asked_seconds = clock.monotonic_seconds()
        self._from_seconds = -math.inf
        self._begins_anew = False

    def discard(self) -> None:
        """Forget what happened since the last window: the time after a switch belongs to nobody."""
        self._take()
        self._untold.clear()
        self._last = None
        self._begins_anew = True

    def begin(self) -> None:
        """Take the snapshot that the next window begins with; the operations since the last one stay in it.

        Raises
        ------
        ServerUnreachable
        """
        self._last = self._first_snapshot()

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
        return self.trace(duration_seconds, 1, configuration_id=configuration_id, labels=labels)[0]

    def record_until(
        self,
        until_seconds: float,
        *,
        configuration_id: str,
        labels: Mapping[str, str] | None = None,
        on_taking: Callable[[], object] = _nothing,
        on_trouble: OnTrouble | None = None,
    ) -> Window:
        """Record as `record` does, up to a monotonic time: windows on a grid do not drift from it.

        Parameters
        ----------
        until_seconds : float
        configuration_id : str
        labels : mapping of str to str, optional
        on_taking : callable
            Called when the wait is over, before the operations are taken out: from there on a Ctrl-C would lose them.
        on_trouble : callable, optional
            Receives what a subscriber raises; the others and the caller have the window all the same. Where absent
            it is raised, and the window is lost.

        Raises
        ------
        ServerUnreachable
            As `record` does.
        """
        self._last = self._last or self._first_snapshot()
        window = self._observed(until_seconds, _nothing, on_taking).window(configuration_id, labels)
        self._publish([window], on_trouble)
        return window

    def record_unseen(
        self,
        since_seconds: float,
        until_seconds: float,
        *,
        reason: str,
        configuration_id: str,
        labels: Mapping[str, str],
        on_taking: Callable[[], object] = _nothing,
    ) -> Window:
        """Wait until a monotonic time, and return what became of the operations while the server is away.

        It has no rates but the load's own, and no subscriber receives it. The next window begins with a new snapshot.
        `on_taking` as in `record_until`.
        """
        self._last = None
        while (left := until_seconds - self._clock.monotonic_seconds()) > 0:
            self._clock.sleep(min(self._activity_seconds, left))
            self._take()
        self._wait_for_reports(until_seconds)
        on_taking()
        now, now_seconds = self._clock.now(), self._clock.monotonic_seconds()
        before = Snapshot(now - timedelta(seconds=now_seconds - since_seconds), since_seconds, {})
        after = Snapshot(now, now_seconds, {}, unseen={"server": reason})
        batches = self._told_until(until_seconds)
        return between(before, after, configuration_id=configuration_id, labels=labels, batches=batches)

    def trace(
        self,
        duration_seconds: float,
        steps: int,
        *,
        configuration_id: str,
        labels: Mapping[str, str] | None = None,
        each_second: EachSecond = _nothing,
    ) -> list[Window]:
        """Record as `record` does, in `steps` windows without gaps; subscribers receive them merged into one.

        What `each_second`, called about so often meanwhile, raises ends it: the windows are lost as where the server
        goes away.

        Notes
        -----
        Each step costs a snapshot and a look at the activity. Where the server goes away, the operations of the steps
        before are lost with them.

        Raises
        ------
        ServerUnreachable
            As `record` does.
        """
        spans = self._spans(duration_seconds, steps, each_second)
        windows = [span.window(configuration_id, labels) for span in spans]
        self._publish(windows)
        return windows

    def record_arms(
        self, duration_seconds: float, *, configuration_ids: Mapping[str, str], labels: Mapping[str, str]
    ) -> dict[str, Window]:
        """Record while two configurations are in force side by side, and return a window for each arm.

        Their operations are their own; the server's and the host's figures are those of both together, and so is the
        one window that subscribers receive, under the first configuration.

        Parameters
        ----------
        duration_seconds : float
        configuration_ids : mapping of str to str
            From each arm's name to what its sessions have.
        labels : mapping of str to str
            Each window of an arm has ``arm`` beside them.

        Raises
        ------
        ServerUnreachable
            As `record` does.
        """
        traces = self.trace_arms(duration_seconds, 1, configuration_ids=configuration_ids, labels=labels)
        return {arm: window for arm, (window,) in traces.items()}

    def trace_arms(
        self,
        duration_seconds: float,
        steps: int,
        *,
        configuration_ids: Mapping[str, str],
        labels: Mapping[str, str],
        each_second: EachSecond = _nothing,
    ) -> dict[str, list[Window]]:
        """Record as `record_arms` does, in `steps` windows of each arm; subscribers receive one for all.

        `each_second` as in `trace`.

        Raises
        ------
        ServerUnreachable
            As `record` does.
        """
        spans = self._spans(duration_seconds, steps, each_second)
        of_both = next(iter(configuration_ids.values()))
        self._publish([span.window(of_both, labels) for span in spans])
        return {
            arm: [span.window(configuration_id, {**labels, "arm": arm}, arm=arm) for span in spans]
            for arm, configuration_id in configuration_ids.items()
        }

    def finish(self, *, configuration_id: str, labels: Mapping[str, str] | None = None) -> Window | None:
        """Return what is left since the last window, once the source has ended; None where that is nothing.

        Failed and skipped operations are in it, those of a lost window too. It needs no server: of one that is away
        it knows no rates. No subscriber receives it, since how a load ends is nothing to learn from.
        """
        self._take()
        batches = self._told_until(math.inf)
        if all(batch.is_empty for batch in batches):
            return None
        after = self._last_snapshot()
        return between(self._last or after, after, configuration_id=configuration_id, labels=labels, batches=batches)

    def _spans(self, duration_seconds: float, steps: int, each_second: EachSecond) -> list[_Span]:
        """Observe in steps whose ends are fixed beforehand, so that their snapshots do not make the whole longer."""
        self._last = self._last or self._first_snapshot()
        began_seconds = self._last.monotonic_seconds
        ends = (began_seconds + duration_seconds * step / steps for step in range(1, steps + 1))
        return [self._observed(until_seconds, each_second) for until_seconds in ends]

    def _observed(
        self, until_seconds: float, each_second: EachSecond, on_taking: Callable[[], object] = _nothing
    ) -> _Span:
        before, self._last = self._last or self._first_snapshot(), None
        try:
            activity = self._observe(until_seconds, each_second)
            after = self._collector.snapshot()
            self._wait_for_reports(after.monotonic_seconds)
            on_taking()
        except KeyboardInterrupt:
            self._last = before  # for `finish`
            raise
        self._last = after
        return _Span(before, after, activity, self._told_until(after.monotonic_seconds))

    def _publish(self, windows: Sequence[Window], on_trouble: OnTrouble | None = None) -> None:
        window = reduce(merge, windows)
        for subscriber in self._subscribers:
            try:
                subscriber(window)
            except Exception as error:
                if on_trouble is None:
                    raise
                on_trouble(error)

    def _first_snapshot(self) -> Snapshot:
        first = self._collector.snapshot()
        if self._begins_anew:
            self._from_seconds, self._begins_anew = first.monotonic_seconds, False
        return first

    def _last_snapshot(self) -> Snapshot:
        try:
            return self._collector.snapshot()
        except TargetError as error:
            return Snapshot(self._clock.now(), self._clock.monotonic_seconds(), {}, unseen={"server": error.what})

    def _observe(self, until_seconds: float, each_second: EachSecond) -> list[ActivitySample]:
        activity: list[ActivitySample] = []
        while (left := until_seconds - self._clock.monotonic_seconds()) > 0:
            self._clock.sleep(min(self._activity_seconds, left))
            activity.append(self._collector.activity())
            self._take()
            each_second()
        return activity

    def _wait_for_reports(self, until_seconds: float) -> None:
        """Wait until all that ended by then is told, or it is plain that somebody does not tell."""
        give_up_seconds = self._clock.monotonic_seconds() + _LONGEST_WAIT_FOR_REPORTS_SECONDS
        self._take()
        while self._complete_until_seconds < until_seconds and self._clock.monotonic_seconds() < give_up_seconds:
            self._clock.sleep(_REPORT_LOOK_SECONDS)
            self._take()

    def _take(self) -> None:
        with self._unbroken():
            since, self._asked_seconds = self._asked_seconds, self._clock.monotonic_seconds()
            for batch in self._samples():
                is_dated = batch.until_seconds > -math.inf
                self._untold.append(
                    batch if is_dated else replace(batch, since_seconds=since, until_seconds=self._asked_seconds)
                )
                self._complete_until_seconds = batch.complete_until_seconds

    def _told_until(self, until_seconds: float) -> list[SampleBatch]:
        """Take out what ended until then; what ended before all windows began is dropped, the rest is kept."""
        parts = [batch.split(self._from_seconds)[1].split(until_seconds) for batch in self._untold]
        self._untold = [later for _, later in parts if not later.is_empty]
        return [earlier for earlier, _ in parts]
