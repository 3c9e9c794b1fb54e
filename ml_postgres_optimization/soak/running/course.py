"""One runner's way through a run: an interval at a time, each on disk before the next one ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.redaction import without_passwords
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal import Begun, Ending, Left, Measured, RunJournal, Totals
from ml_postgres_optimization.soak.running.storing import Store
from ml_postgres_optimization.soak.running.timeline import Timeline
from ml_postgres_optimization.soak.running.turn import Turn
from ml_postgres_optimization.soak.running.watch import Load, Watch
from ml_postgres_optimization.telemetry import BootClock, Recorder, Window, merge

# An interval that was seen for less than this share of its length is not a whole one.
_WHOLE_RATIO = 0.9
_PAUSED_LOOK_SECONDS = 1.0
_LOWER_BOUND_ONLY = (
    "What was done and not reported is in no count, so that the ledger is asked only whether all that was "
    "acknowledged is there."
)
# A server that was killed recovers within minutes, or somebody has to look at it.
_SETTLE_PATIENCE_SECONDS = 300.0
# Of the run's time, where that is short: nobody waits for minutes after a test of seconds.
_SETTLE_SHARE, _LEAST_SETTLE_SECONDS = 0.1, 20.0
_SETTLE_LOOK_SECONDS = 5.0
_RESTS = "the load rests: no record can be kept"


class Course:
    """One runner's way through a run.

    Parameters
    ----------
    journal : RunJournal
        Open; what it says of the run so far is where the course begins.
    recorder : Recorder
        Fed by the load.
    timeline : Timeline
    clock : BootClock
    watch : Watch
    load : Load, optional
        Stopped at the end. Without one the samples are taken as they come.
    epoch : int, optional
        Of this runner; one more than the last one's where absent.
    """

    def __init__(
        self,
        journal: RunJournal,
        recorder: Recorder,
        timeline: Timeline,
        clock: BootClock,
        *,
        watch: Watch,
        load: Load | None = None,
        epoch: int | None = None,
    ) -> None:
        self._journal = journal
        self._recorder = recorder
        self._timeline = timeline
        self._clock = clock
        self._watch = watch
        self._load = load
        self._store = Store(journal)
        self._epoch = epoch or journal.state.epoch + 1
        self._first_number = journal.state.taken_until + 1
        self._turn = Turn(timeline, journal.description.intervals_total)
        self._span = (-1, -1)
        self._totals = journal.state.totals.of_next_epoch()
        self._died_before, self._died_total = journal.state.died_total, 0
        self._garbage_seconds = 0.0
        self._events: list[Event] = []
        self._down_since: Event | None = None
        self._number = self._kept_number = 0
        self._is_stopped = False
        self._last_resources: Mapping[str, float] = {}
        self._trouble = ""
        self._unsettled: str | None = None
        self._is_settled: bool | None = None

    def run(self, on_interval: Callable[[Interval, float], None]) -> Ending:
        """Go through the run's intervals from this moment to its end, or to Ctrl-C, and return how it ended.

        Parameters
        ----------
        on_interval : callable
            Receives each interval and the share of the duration that is over (0 to 1).

        Raises
        ------
        GenesisError
            What the watch raises.
        OSError
            If the journal cannot be begun.
        """
        description = self._journal.description
        self._number = max(self._first_number, self._timeline.number)
        lost_until = self._journal.state.lost_until
        self._journal.append(Begun(self._epoch, self._clock.now(), self._number, lost_until))
        self._kept_number = self._number - 1
        ending = Ending.FINISHED
        try:
            while self._number < description.intervals_total and ending is Ending.FINISHED:
                ending = self._step(on_interval)
        except KeyboardInterrupt:  # between two intervals
            ending = Ending.STOPPED
        with suppress(KeyboardInterrupt), deferred_signals():  # it ends anyway
            self._take_rest()
        self._has_lost_clients()
        self._settle(ending)
        return ending

    def leave(self, ending: Ending, text: str = "") -> None:
        """Say in the journal how the runner leaves; raises OSError where it, or what is before it, cannot be.

        What is in memory only is written first, as soon as there is room; somebody who wants to leave waits less.
        Where it is not, no end is written either, though that may find room: the run would pass for whole.
        """
        seconds = _LEAST_SETTLE_SECONDS if ending is Ending.STOPPED else self._patience_seconds
        refusal = self._store.flush_within(seconds, self._clock)
        if self._unsettled is not None:
            text = f"{text} The ledger could not be settled: {self._unsettled}".strip()
        if refusal is None or ending is Ending.VIOLATED:  # that is for good, whatever is missing
            self._journal.append(Left(ending, self._clock.now(), text, self._is_settled))
        if refusal is not None:
            raise refusal

    @property
    def unwritten(self) -> range:
        """The numbers of the intervals that are in memory only, from the first to the last."""
        return self._store.waiting

    @property
    def totals(self) -> Totals:
        """What the load has done."""
        return self._totals

    def _step(self, on_interval: Callable[[Interval, float], None]) -> Ending:
        """Go through one interval; a Ctrl-C that comes when its operations are taken waits until they are kept."""
        with ExitStack() as held:
            interval, ending = self._interval(self._number, lambda: held.enter_context(deferred_signals()))
            self._keep(interval)
        elapsed_ratio = self._timeline.elapsed_seconds / self._journal.description.duration_seconds
        on_interval(interval, min(1.0, elapsed_ratio))
        self._rest_while_full()
        # the machine may have slept
        self._number = max(self._number, self._timeline.number)
        return ending

    def _interval(self, number: int, hold: Callable[[], object]) -> tuple[Interval, Ending]:
        self._watch.prepare(number)
        began, configuration_id = self._clock.monotonic_seconds(), self._watch.configuration_id()
        until, ending, state = self._timeline.monotonic_end(number), Ending.FINISHED, IntervalState.MEASURED
        window: Window | None
        try:
            try:
                window = self._recorder.record_until(
                    until,
                    configuration_id=configuration_id,
                    labels=self._journal.description.labels,
                    on_taking=hold,
                    on_trouble=self._subscriber_failed,
                )
                self._server_is_back()
            except TargetError as error:
                state = IntervalState.SERVER_DOWN
                self._server_is_away(error.what)
                window = self._unseen((began, until), error.what, configuration_id, hold)
        except KeyboardInterrupt:
            hold()
            window, ending = self._rest(configuration_id), Ending.STOPPED
        is_last = number + 1 >= self._journal.description.intervals_total or self._turn.is_last
        if is_last and ending is Ending.FINISHED:
            window = self._with_rest(window, configuration_id)
        return self._judged(number, state, window, began), ending

    def _unseen(
        self, span: tuple[float, float], reason: str, configuration_id: str, hold: Callable[[], object]
    ) -> Window:
        return self._recorder.record_unseen(
            *span,
            reason=reason,
            configuration_id=configuration_id,
            labels=self._journal.description.labels,
            on_taking=hold,
        )

    def _subscriber_failed(self, error: Exception) -> None:
        """Tell it once: what a subscriber makes of windows is no reason to lose one."""
        told, self._trouble = self._trouble, f"A window was not kept elsewhere: {type(error).__name__}: {error}"
        if self._trouble != told:
            self._events.append(Event(EventKind.RUNNER, without_passwords(self._trouble), self._clock.now()))

    def _take_rest(self) -> None:
        """Stop the load, and count what it has left: in the last interval, where that is not written yet."""
        began, window = self._clock.monotonic_seconds(), self._rest(self._watch.configuration_id())
        if window is None:
            return
        number = min(self._number, self._journal.description.intervals_total - 1)
        if number > self._kept_number:
            self._keep(self._judged(number, IntervalState.DEGRADED, window, began))
        else:
            self._totals = self._totals.after(window, self._written(window))

    @property
    def _patience_seconds(self) -> float:
        share = max(_LEAST_SETTLE_SECONDS, _SETTLE_SHARE * self._journal.description.duration_seconds)
        return min(_SETTLE_PATIENCE_SECONDS, share)

    def _settle(self, ending: Ending) -> None:
        """Have the totals settled; at the run's end again for a while, since no runner after this one will."""
        settle, until = self._watch.settle, self._clock.monotonic_seconds() + self._patience_seconds
        if settle is None:
            return
        self._is_settled = False
        try:
            self._unsettled = settle(self._totals)
            while self._unsettled and ending is Ending.FINISHED and self._clock.monotonic_seconds() < until:
                self._clock.sleep(_SETTLE_LOOK_SECONDS)
                self._unsettled = settle(self._totals)
        except KeyboardInterrupt:
            self._unsettled = "it was interrupted."
        self._is_settled = self._unsettled is None

    def _rest(self, configuration_id: str) -> Window | None:
        """Stop the load, and return what there is since the last window."""
        self._stop()
        return self._recorder.finish(configuration_id=configuration_id, labels=self._journal.description.labels)

    def _with_rest(self, window: Window | None, configuration_id: str) -> Window | None:
        rest = self._rest(configuration_id)
        return merge(window, rest) if rest and window else window or rest

    def _judged(
        self, number: int, state: IntervalState, window: Window | None, began: float, *, has_rested: bool = False
    ) -> Interval:
        """Return the interval with its state, and all that was seen in it."""
        clock_events, slept = self._timeline.look()
        self._events += [*clock_events, *self._watch.events()]
        first, last = self._span = self._turn.span(number, is_broken=bool(slept) or has_rested)
        if is_held_up := first < last:
            text = f"The runner was held up: intervals {first:,} to {last:,} are counted together, in {number:,}."
            self._events.append(Event(EventKind.RUNNER, text, self._clock.now()))
        seconds = self._clock.monotonic_seconds() - began
        ended_at = window.ended_at if window else self._clock.now()
        resources = {**(self._last_resources or self._watch.resources()), **self._of_load(began)}
        # what the work after the one before took is in the window all the same
        seen_seconds = window.duration_seconds if window else seconds
        is_whole = seen_seconds >= _WHOLE_RATIO * self._journal.description.interval_seconds
        is_last_one = number + 1 >= self._journal.description.intervals_total
        doubtful = self._has_lost_clients() or is_held_up or bool(clock_events or slept)
        if state is IntervalState.MEASURED and (doubtful or not (is_whole or is_last_one)):
            state = IntervalState.DEGRADED
        events, self._events = tuple(self._events), []
        started_at = window.started_at if window else ended_at - timedelta(seconds=seconds)
        if is_held_up:  # its neighbours have their own time
            length = timedelta(seconds=self._journal.description.interval_seconds)
            started_at += (number - first) * length
            ended_at = started_at + length
        return Interval(number, self._epoch, state, started_at, ended_at, window, resources, events)

    def _of_load(self, since: float) -> dict[str, float]:
        if self._load is None:
            return {}
        counters = self._load.counters
        ended = counters.succeeded_total + counters.failed_total + counters.skipped_total
        before, self._garbage_seconds = self._garbage_seconds, counters.garbage_seconds_total
        return {
            "client.cpu_ratio": self._load.cpu_ratio_since(since),
            "client.died_total": float(self._died_before + counters.died_total),
            "client.garbage_seconds": counters.garbage_seconds_total - before,
            "client.operations_under_way": float(counters.due_total - ended),
        }

    def _has_lost_clients(self) -> bool:
        before, self._died_total = self._died_total, self._load.counters.died_total if self._load else 0
        if self._died_total > before:
            self._totals = replace(self._totals, is_whole=False)
            self._events.append(
                Event(EventKind.RUNNER, f"A client process of the load died. {_LOWER_BOUND_ONLY}", self._clock.now())
            )
        return self._died_total > before

    def _keep(self, interval: Interval) -> None:
        if interval.window is not None:
            self._totals = self._totals.after(interval.window, self._written(interval.window))
        self._kept_number = self._span[1]
        self._number = max(self._span[1] + 1, self._timeline.number)
        told = self._store.add(Measured(interval, self._totals, self._timeline.mark(), self._span))
        self._events += [told] if told else []
        self._watch.review(interval.state, self._totals)

    def _written(self, window: Window) -> int:
        changing = (one for kind, one in window.operations.items() if kind not in self._watch.reads)
        return sum(one.response.total - one.failed_total for one in changing)

    def _rest_while_full(self) -> None:
        """Let the load rest while neither the disk nor the memory takes another interval."""
        if not self._store.is_full or self._load is None:
            return
        began = self._clock.now()
        self._load.pause()
        self._turn.rest()
        try:
            self._keep_what_ends()
        finally:
            told = Event(EventKind.DISK, "The load rested: no record could be kept.", began, self._clock.now())
            self._events.append(told)
        self._load.resume()

    def _keep_what_ends(self) -> None:
        """Wait for room, and for the interval's end; keep what ends meanwhile: what was acknowledged is counted."""
        number, began, window = self._number, self._clock.monotonic_seconds(), None
        is_open, configuration_id = number < self._journal.description.intervals_total, self._watch.configuration_id()
        with ExitStack() as held:
            try:
                while self._store.is_full or (is_open and self._timeline.number == number):
                    part = self._rested(configuration_id)
                    # beyond the interval only what has taken so long to end
                    if window is None or self._timeline.number <= number or part.due_total or part.operations_total:
                        window = merge(window, part) if window else part
            finally:
                held.enter_context(deferred_signals())
                if window is not None and is_open:
                    self._keep(self._judged(number, IntervalState.DEGRADED, window, began, has_rested=True))
                elif window is not None:
                    self._totals = self._totals.after(window, self._written(window))

    def _rested(self, configuration_id: str) -> Window:
        """Return what ended in a second of rest, and look whether there is room again."""
        now = self._clock.monotonic_seconds()
        part = self._unseen((now, now + _PAUSED_LOOK_SECONDS), _RESTS, configuration_id, lambda: None)
        told = self._store.flush(self._clock.now())
        self._events += [told] if told else []
        return part

    def _server_is_away(self, what: str) -> None:
        if self._down_since is None:
            self._down_since = Event(EventKind.SERVER, f"The server went away: {what}", self._clock.now())
            self._events.append(self._down_since)

    def _server_is_back(self) -> None:
        if self._down_since is not None:
            down, self._down_since = self._down_since, None
            self._events.append(Event(EventKind.SERVER, "The server was away.", down.at, self._clock.now()))

    def _stop(self) -> None:
        if self._load is not None and not self._is_stopped:
            self._is_stopped = True
            # what they use after their end is no figure of the run's
            self._last_resources = self._watch.resources()
            self._load.stop()
