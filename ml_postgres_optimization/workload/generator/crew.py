"""All client processes of one load: started, heard, started again when they die, and stopped."""

from __future__ import annotations

import math
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from ml_postgres_optimization.errors import ServerUnreachable, TargetError
from ml_postgres_optimization.retry.backoff import full_jitter_seconds
from ml_postgres_optimization.telemetry import SampleBatch, SystemClock
from ml_postgres_optimization.workload.arrival import INTERVAL_SECONDS
from ml_postgres_optimization.workload.generator.admission import Admission
from ml_postgres_optimization.workload.generator.child import ChildProcess, failure_at_start
from ml_postgres_optimization.workload.generator.counters import LoadCounters, lost
from ml_postgres_optimization.workload.generator.shares import shares_of, usable_cores
from ml_postgres_optimization.workload.plan import LoadPlan
from ml_postgres_optimization.workload.process.messages import (
    Assignment,
    Failure,
    Position,
    Ready,
    Report,
    Start,
    Stop,
)

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0
# A process reports several times a second; one that says nothing for so long hangs.
MAXIMUM_SILENCE_SECONDS = 15.0
# Reports and ends wake whoever listens; only what nothing tells of is looked for so often.
_LISTEN_SECONDS = 0.5
_RESTART_BASE_SECONDS = 0.1
_RESTART_CAP_SECONDS = 5.0
_SLEEP_SECONDS = 1.0


class Crew:
    """The client processes of one load.

    Parameters
    ----------
    admission : Admission
    plan : LoadPlan
    maximum_silence_seconds : float
        A process that says nothing for so long is killed, and started again.

    Notes
    -----
    One thread gives orders; another, the crew's own, listens. `_state` guards what both touch.
    """

    def __init__(
        self, admission: Admission, plan: LoadPlan, *, maximum_silence_seconds: float = MAXIMUM_SILENCE_SECONDS
    ) -> None:
        self._admission = admission
        self._plan = plan
        self._size = plan.process_count(usable_cores())
        self._turn = 0
        self._maximum_silence_seconds = maximum_silence_seconds
        self._children: dict[int, ChildProcess] = {}
        self._vacancies: dict[int, tuple[float, Position]] = {}  # by worker: when to start another, and where
        self._state = threading.RLock()
        self._stopping = threading.Event()
        self._asleep_seconds = _asleep_seconds()
        self._listener = threading.Thread(target=self._listen, name="load-generator", daemon=True)
        self.started_at_seconds = 0.0
        self.batches: deque[SampleBatch] = deque()
        self.counters = LoadCounters()
        self.last_failure: str | None = None

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The processes that are running."""
        with self._state:
            return tuple(child.pid for child in self._children.values())

    @property
    def concurrency_limit(self) -> int | None:
        """How many operations at once they found to be best, all together; None where nobody looks."""
        with self._state:
            limits = [child.concurrency_limit for child in self._children.values()]
        found = [limit for limit in limits if limit is not None]
        return sum(found) if found else None

    def cpu_ratio(self, since_seconds: float) -> float:
        """Return the largest share of a core that one of them used since a monotonic time."""
        with self._state:
            return max((child.cpu_ratio(since_seconds) for child in self._children.values()), default=0.0)

    def _position_at(self, monotonic_seconds: float) -> Position:
        """Return where the schedule is then: at the next interval that is whole."""
        return Position(math.ceil((monotonic_seconds - self.started_at_seconds) / INTERVAL_SECONDS))

    def start(self) -> None:
        """Start every process, wait until all have their connections, and let them begin together.

        Raises
        ------
        ServerUnreachable, AuthenticationFailed, PrivilegeMissing, UsageError, TargetError
        """
        try:
            for worker in range(self._size):
                self._children[worker] = self._hire(worker)
            for child in self._children.values():
                _await_ready(child, time.monotonic() + START_TIMEOUT_SECONDS)
        except BaseException:
            self._dismiss_all()
            raise
        now = time.monotonic()
        resumed_seconds = self._plan.schedule_start_seconds
        self.started_at_seconds = now if resumed_seconds is None else min(now, resumed_seconds)
        # nothing has happened yet, and whoever asks is told that reports will come
        self._hand_over([lost(0)], now, now)
        for child in self._children.values():
            child.position = self._position_at(now)
            child.send(Start(self.started_at_seconds, None if resumed_seconds is None else child.position))
        self._listener.start()

    def change(self, plan: LoadPlan, *, begins_turn: bool = False) -> None:
        """Go on by another plan; where a turn begins, sessions are divided afresh and plan their statements anew."""
        with self._state:
            self._plan = plan
            self._turn += begins_turn
            shares = shares_of(plan, self._size, turn=self._turn)
            for worker, child in self._children.items():
                child.send(shares[worker])

    def stop(self, drain_seconds: float) -> None:
        """End all processes in good order, and those that do not answer by force."""
        if self._listener.ident is None:
            return
        with self._state:
            self._stopping.set()
            for child in self._children.values():
                child.send(Stop(drain_seconds))
        try:
            self._listener.join(drain_seconds + STOP_TIMEOUT_SECONDS)
        finally:
            for child in tuple(self._children.values()):
                child.kill()
            self._listener.join()

    def _hire(self, worker: int) -> ChildProcess:
        child = ChildProcess(worker)
        child.send(
            Assignment(
                worker=worker,
                connect=self._admission.connect,
                plan=self._plan,
                share=shares_of(self._plan, self._size, turn=self._turn)[worker],
                account_count=self._admission.account_count,
                key_count=self._plan.key_count or self._admission.account_count,
                zipf_exponent=self._admission.zipf_exponent,
            )
        )
        return child

    def _dismiss_all(self) -> None:
        for child in self._children.values():
            child.kill()
            child.bury()
        self._children.clear()

    def _listen(self) -> None:
        """Hear every process until all have ended."""
        while not self._is_over:
            crew = tuple(self._children.values())
            with selectors.DefaultSelector() as ears:
                for child in crew:
                    ears.register(child.channel, selectors.EVENT_READ, child)
                while crew == tuple(self._children.values()) and not self._is_over:
                    self._listen_once(ears)

    @property
    def _is_over(self) -> bool:
        return self._stopping.is_set() and not self._children

    def _listen_once(self, ears: selectors.BaseSelector) -> None:
        for key, _ in ears.select(self._patience_seconds):
            self._hear(key.data)
        if not self._stopping.is_set():
            self._catch_up()
            self._kill_the_silent()
            self._fill_vacancies()

    @property
    def _patience_seconds(self) -> float:
        """How long to listen at most: until a vacancy is to be filled."""
        if self._stopping.is_set() or not self._vacancies:
            return _LISTEN_SECONDS
        due_seconds = min(at_seconds for at_seconds, _ in self._vacancies.values())
        return min(_LISTEN_SECONDS, max(0.0, due_seconds - time.monotonic()))

    def _hear(self, child: ChildProcess) -> None:
        try:
            message = child.channel.recv()
        except (EOFError, OSError):
            self._part_with(child)
            return
        child.heard_at_seconds = time.monotonic()
        match message:
            case Report():
                with self._state:
                    since_seconds = child.reported_until_seconds
                    child.hear(message)
                    self._hand_over(message.batches, since_seconds, message.at_seconds)
                    self.counters += LoadCounters.of(message)
            case Failure(sqlstate=""):
                child.failure = message

    def _hand_over(self, batches: Iterable[SampleBatch], since_seconds: float, until_seconds: float) -> None:
        """Keep what somebody will ask for, an empty batch too: it says that nothing has ended until then."""
        reported = [child.reported_until_seconds for child in self._children.values() if not child.has_finished]
        self.batches.extend(
            replace(
                batch,
                since_seconds=since_seconds,
                until_seconds=until_seconds,
                complete_until_seconds=min(reported, default=math.inf),
            )
            for batch in batches
        )

    def _part_with(self, child: ChildProcess) -> None:
        """Take leave of a process whose pipe has ended; plan another in its place, unless it had finished."""
        reason = child.bury()
        with self._state:
            del self._children[child.worker]
            if child.has_finished:
                return
            self.last_failure = reason
            self._hand_over([lost(child.waiting_total)], child.reported_until_seconds, time.monotonic())
            self.counters += LoadCounters(skipped_total=child.waiting_total, died_total=1)
            if not self._stopping.is_set():
                pause = full_jitter_seconds(
                    self.counters.restarts_total + 1,
                    base_seconds=_RESTART_BASE_SECONDS,
                    cap_seconds=_RESTART_CAP_SECONDS,
                )
                self._vacancies[child.worker] = (time.monotonic() + pause, child.position)

    def _catch_up(self) -> None:
        """Move the schedule on by what the machine has slept: a day's shape goes on, and monotonic time does not."""
        slept_seconds = _asleep_seconds() - self._asleep_seconds
        if slept_seconds < _SLEEP_SECONDS or not self._plan.is_open_loop:
            return
        with self._state:
            self._asleep_seconds += slept_seconds
            self.started_at_seconds -= slept_seconds
            position = self._position_at(time.monotonic())
            self._vacancies = {worker: (at_seconds, position) for worker, (at_seconds, _) in self._vacancies.items()}
            for child in self._children.values():
                child.position = position
                child.send(Start(self.started_at_seconds, position))

    def _kill_the_silent(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            is_silent = now - child.heard_at_seconds > self._maximum_silence_seconds
            if is_silent and not child.channel.poll():  # else it is we who were held up, and did not listen
                child.failure = Failure(f"it said nothing for {self._maximum_silence_seconds:g} s")
                child.kill()

    def _fill_vacancies(self) -> None:
        now = time.monotonic()
        with self._state:
            for worker, (at_seconds, position) in tuple(self._vacancies.items()):
                if now >= at_seconds and not self._stopping.is_set():
                    self._fill(worker, position)

    def _fill(self, worker: int, position: Position) -> None:
        """Start another process; where this machine lets none begin just now, later."""
        try:
            child = self._hire(worker)
        except OSError as error:
            self.last_failure = f"no process could be started: {error.strerror or error}"
            self._vacancies[worker] = (time.monotonic() + _RESTART_CAP_SECONDS, position)
            return
        del self._vacancies[worker]
        # one that dies before it has reported leaves the schedule where it was
        child.position = position
        child.send(Start(self.started_at_seconds, position))
        self._children[worker] = child
        self.counters += LoadCounters(restarts_total=1)


def _asleep_seconds() -> float:
    """Return for how long this machine has slept since it was started."""
    clock = SystemClock()
    return clock.boottime_seconds() - clock.monotonic_seconds()


def _await_ready(child: ChildProcess, until_seconds: float) -> None:
    """Wait until the process has its connections.

    Raises
    ------
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, UsageError, TargetError
    """
    while child.channel.poll(max(0.0, until_seconds - time.monotonic())):
        try:
            message = child.channel.recv()
        except (EOFError, OSError):
            raise TargetError(
                f"A client process of the load ended at its start: {child.bury()}", "Run with --debug, and report it."
            ) from None
        match message:
            case Ready():
                return
            case Failure():
                raise failure_at_start(message)
    raise ServerUnreachable(
        f"The load's connections were not open after {START_TIMEOUT_SECONDS:g} s.",
        "Check how fast the server accepts connections, or ask for fewer.",
    )
