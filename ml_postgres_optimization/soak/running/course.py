"""One runner's way through a run: an interval at a time, each on disk before the next one ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal import Begun, Ending, Left, Measured, RunJournal, RunState, Totals
from ml_postgres_optimization.soak.running.storing import Store
from ml_postgres_optimization.soak.running.timeline import Timeline
from ml_postgres_optimization.telemetry import BootClock, Recorder, Window, merge
from ml_postgres_optimization.workload import LoadCounters

# An interval that was seen for less than this share of its length is not a whole one.
_WHOLE_RATIO = 0.9
_PAUSED_LOOK_SECONDS = 1.0
_LOWER_BOUND_ONLY = (
    "What was done and not reported is in no count, so that the ledger is asked only whether all that was "
    "acknowledged is there."
)


class Load(Protocol):
    """Load of our own, as far as a soak needs it."""

    @property
    def counters(self) -> LoadCounters:
        """What it has done so far."""

    def cpu_ratio_since(self, monotonic_seconds: float) -> float:
        """Return the largest share of a core that one of its client processes used since then."""

    def pause(self) -> None:
        """Offer nothing for a while."""

    def resume(self) -> None:
        """Go on."""

    def stop(self) -> None:
        """End it, and hand over what it has left."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What else is looked at in every interval.

    Parameters
    ----------
    configuration_id : callable
        Returns the configuration in force; asked at the beginning of each interval.
    resources : callable
        Returns what the runner and its processes use, by name.
    events : callable
        Returns what others have to tell since it was last asked: faults, changes of the configuration.
    prepare : callable
        Called with each interval's number before it begins; what it raises ends the run: the fence, for one.
    review : callable
        Called with the state of an interval that was written, and its totals; what it raises ends the run.
    settle : callable
        Called with the totals once the load has ended.
    reads : set of str
        Kinds of operations that change nothing.
    """

    configuration_id: Callable[[], str]
    resources: Callable[[], Mapping[str, float]] = dict
    events: Callable[[], tuple[Event, ...]] = tuple
    prepare: Callable[[int], None] = lambda _number: None
    review: Callable[[IntervalState, Totals], None] = lambda _state, _totals: None
    settle: Callable[[Totals], None] = lambda _totals: None
    reads: frozenset[str] = field(default_factory=frozenset)


def nobody_watches(configuration_id: str) -> Watch:
    """Return a watch that looks at nothing else."""
    return Watch(lambda: configuration_id)


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
        self._first_number = _taken(journal.state) + 1
        self._totals = journal.state.totals.of_next_epoch()
        self._died_before, self._died_total = journal.state.died_total, 0
        self._events: list[Event] = []
        self._down_since: Event | None = None
        self._number = 0
        self._is_stopped = False

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
        self._journal.append(Begun(self._epoch, self._clock.now()))
        self._number = max(self._first_number, self._timeline.number)
        ending = Ending.FINISHED
        try:
            while self._number < description.intervals_total and ending is Ending.FINISHED:
                interval, ending = self._interval(self._number)
                self._keep(interval)
                on_interval(interval, min(1.0, self._timeline.elapsed_seconds / description.duration_seconds))
                self._rest_while_full()
                # the machine may have slept
                self._number = max(self._number, self._timeline.number)
        except KeyboardInterrupt:  # between two intervals
            began, window = self._clock.monotonic_seconds(), self._rest(self._watch.configuration_id())
            if window is not None and self._number < description.intervals_total:
                self._keep(self._judged(self._number, IntervalState.DEGRADED, window, began))
            ending = Ending.STOPPED
        # the time was over before the last interval: nobody takes what the load has left
        if self._load is not None and not self._is_stopped:
            self._stop()
            self._totals = replace(self._totals, is_whole=False)
        self._has_lost_clients()
        self._watch.settle(self._totals)
        return ending

    def leave(self, ending: Ending, text: str = "") -> None:
        """Say in the journal how the runner leaves; raises OSError where it cannot be written."""
        self._store.flush(self._clock.now())
        self._journal.append(Left(ending, self._clock.now(), text))

    @property
    def totals(self) -> Totals:
        """What the load has done."""
        return self._totals

    def _interval(self, number: int) -> tuple[Interval, Ending]:
        self._watch.prepare(number)
        began, configuration_id = self._clock.monotonic_seconds(), self._watch.configuration_id()
        until, ending = self._timeline.monotonic_end(number), Ending.FINISHED
        state = IntervalState.MEASURED
        window: Window | None
        labels = self._journal.description.labels
        try:
            window = self._recorder.record_until(until, configuration_id=configuration_id, labels=labels)
            self._server_is_back()
        except TargetError as error:
            state = IntervalState.SERVER_DOWN
            self._server_is_away(error.what)
            try:
                window = self._recorder.record_unseen(
                    *(began, until), reason=error.what, configuration_id=configuration_id, labels=labels
                )
            except KeyboardInterrupt:
                window, ending = self._rest(configuration_id), Ending.STOPPED
        except KeyboardInterrupt:
            window, ending = self._rest(configuration_id), Ending.STOPPED
        is_last = number + 1 >= self._journal.description.intervals_total
        if is_last and ending is Ending.FINISHED:
            window = self._with_rest(window, configuration_id)
        return self._judged(number, state, window, began), ending

    def _rest(self, configuration_id: str) -> Window | None:
        """Stop the load, and return what there is since the last window."""
        self._stop()
        return self._recorder.finish(configuration_id=configuration_id, labels=self._journal.description.labels)

    def _with_rest(self, window: Window | None, configuration_id: str) -> Window | None:
        rest = self._rest(configuration_id)
        return merge(window, rest) if rest and window else window or rest

    def _judged(self, number: int, state: IntervalState, window: Window | None, began: float) -> Interval:
        """Return the interval with its state, and all that was seen in it."""
        clock_events, slept = self._timeline.look()
        self._events += [*clock_events, *self._watch.events()]
        seconds = self._clock.monotonic_seconds() - began
        ended_at = window.ended_at if window else self._clock.now()
        resources = {**self._watch.resources(), **self._of_load(began)}
        is_whole = seconds >= _WHOLE_RATIO * self._journal.description.interval_seconds
        is_last_one = number + 1 >= self._journal.description.intervals_total
        doubtful = self._has_lost_clients() or bool(clock_events or slept)
        if state is IntervalState.MEASURED and (doubtful or not (is_whole or is_last_one)):
            state = IntervalState.DEGRADED
        events, self._events = tuple(self._events), []
        started_at = window.started_at if window else ended_at - timedelta(seconds=seconds)
        return Interval(number, self._epoch, state, started_at, ended_at, window, resources, events)

    def _of_load(self, since: float) -> dict[str, float]:
        if self._load is None:
            return {}
        died = self._died_before + self._load.counters.died_total
        return {"client.cpu_ratio": self._load.cpu_ratio_since(since), "client.died_total": float(died)}

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
        self._number = max(interval.number + 1, self._timeline.number)
        told = self._store.add(Measured(interval, self._totals, self._timeline.mark()))
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
        while self._store.is_full:
            self._clock.sleep(_PAUSED_LOOK_SECONDS)
            told = self._store.flush(self._clock.now())
            self._events += [told] if told else []
        self._recorder.discard()
        self._totals = replace(self._totals, is_whole=False)
        self._load.resume()
        self._events.append(
            Event(
                EventKind.DISK,
                f"The load rested: no record could be kept. {_LOWER_BOUND_ONLY}",
                began,
                self._clock.now(),
            )
        )

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
            self._load.stop()


def wait_for_turn(state: RunState, timeline: Timeline, clock: BootClock) -> None:
    """Wait until no runner before could have been in the interval of this moment; then the load may begin."""
    taken = _taken(state)
    while timeline.number <= taken:
        clock.sleep(timeline.monotonic_end(taken) - clock.monotonic_seconds())


def _taken(state: RunState) -> int:
    """Return the last interval that a runner was in: one that was killed had begun the one after its last record."""
    return state.last_number + (state.epoch > 0 and state.ending is None)
