"""Faults beside a run: where they may strike, when each comes, and what is told of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from ml_postgres_optimization.errors import JournalError, UsageError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.soak.interval import Event, EventKind
from ml_postgres_optimization.soak.journal import RunDescription
from ml_postgres_optimization.soak.running import Timeline
from ml_postgres_optimization.telemetry import Clock, SystemClock
from ml_postgres_optimization.workload import LoadCounters, LoadGenerator, LoadPlan
from ml_postgres_optimization.workload.faults import (
    NO_FAULTS,
    FaultGround,
    FaultInjector,
    FaultKind,
    FaultList,
    FaultProxy,
    FaultRecord,
    FaultSchedule,
)


def faults_of(load: Mapping[str, Any]) -> FaultList:
    """Return the faults that a run's description keeps.

    Raises
    ------
    JournalError
        If they are none.
    """
    try:
        return FaultList(tuple(load.get("faults", ())))
    except (UsageError, TypeError) as error:
        raise JournalError(
            f"The run's faults cannot be read from its journal: {error}.", "Abandon it, and start another."
        ) from error


def require_ground(session: Session, faults: FaultList) -> None:
    """Refuse faults on a server of another machine, and on one of the user's those that strike the server itself.

    Raises
    ------
    UsageError
    """
    if not faults.tables:
        return
    FaultGround(session.connection.dsn_for_driver())
    of_the_server = sorted({kind for kind in faults.kinds if kind.is_of_the_server})
    if of_the_server and not session.embedded:
        raise UsageError(
            f"The faults have {' and '.join(of_the_server)}, and {session.connection.display} is a server of yours.",
            "Leave them out (preset light has none), or test the embedded server: name no server.",
        )


@dataclass(frozen=True, slots=True)
class Disturbable:
    """A load that runs, and the ground on which faults may strike it; None where none come."""

    load: LoadGenerator
    ground: FaultGround | None


@contextmanager
def running_under(session: Session, plan: LoadPlan, faults: FaultList) -> Iterator[Disturbable]:
    """Run the load as long as the context lasts, by way of a line that can be cut where a fault needs one.

    Raises
    ------
    UsageError
        If faults must not strike this server.
    """
    dsn = session.connection.dsn_for_driver()
    require_ground(session, faults)
    if not faults.tables:
        with LoadGenerator(dsn, plan) as load:
            yield Disturbable(load, None)
    elif not faults.needs_line:
        with LoadGenerator(dsn, plan) as load:
            yield Disturbable(load, FaultGround(dsn, plan, server=session.own_server))
    else:
        with FaultProxy(dsn, seed=plan.seed) as line, LoadGenerator(line.dsn, plan) as load:
            yield Disturbable(load, FaultGround(dsn, plan, server=session.own_server, line=line))


class RunClock(SystemClock):
    """The clock of a run: how far it has come stands for monotonic time, so that sleep counts."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def monotonic_seconds(self) -> float:
        """Return the time since the run began."""
        return self._timeline.elapsed_seconds


class DisturbedLoad:
    """A load with faults beside it, which are put back before it is stopped; a context, and a soak's `Load`.

    Parameters
    ----------
    disturbable : Disturbable
    description : RunDescription
        Its seed, its duration and its faults say what comes when, whichever runner it is.
    timeline : Timeline
    clock : Clock
        For the times of events.
    """

    def __init__(
        self, disturbable: Disturbable, description: RunDescription, timeline: Timeline, clock: Clock
    ) -> None:
        self._load = disturbable.load
        self._clock = clock
        self._state = threading.Lock()
        self._ended: list[FaultRecord] = []
        # under way by seed, which no two of a run share in practice; and whether it was told
        self._under_way: dict[int, tuple[FaultRecord, bool]] = {}
        self._passed_over: Counter[tuple[FaultKind, str]] = Counter()
        self._injector = self._injector_of(disturbable.ground, description, timeline)

    def _injector_of(
        self, ground: FaultGround | None, description: RunDescription, timeline: Timeline
    ) -> FaultInjector | None:
        faults = faults_of(description.load)
        if ground is None or not faults.tables:
            return None
        return FaultInjector(
            FaultSchedule(faults.rates, description.duration_seconds, seed=description.seed),
            ground,
            tell=self._hear,
            passed_over=self._hear_passed_over,
            clock=RunClock(timeline),
            elapsed_seconds=timeline.elapsed_seconds,
        )

    def __enter__(self) -> Self:
        if self._injector is not None:
            self._injector.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    @property
    def counters(self) -> LoadCounters:
        """What the load has done so far."""
        return self._load.counters

    def cpu_ratio_since(self, monotonic_seconds: float) -> float:
        """Return what the load's does."""
        return self._load.cpu_ratio_since(monotonic_seconds)

    def pause(self) -> None:
        """Let the load offer nothing for a while; faults go on."""
        self._load.pause()

    def resume(self) -> None:
        """Let the load go on."""
        self._load.resume()

    def stop(self) -> None:
        """Put every fault back, then end the load: what is due is answered by a server that is there."""
        self._put_back()
        self._load.stop()

    def events(self) -> tuple[Event, ...]:
        """Return what there is to tell of faults since the last call; what goes on is told again at its end."""
        with self._state:
            ended, self._ended = self._ended, []
            new = [record for record, is_told in self._under_way.values() if not is_told]
            self._under_way = {seed: (record, True) for seed, (record, _) in self._under_way.items()}
            passed_over, self._passed_over = self._passed_over, Counter()
        return (
            *(self._event(record) for record in (*ended, *new)),
            *(self._passed_over_event(kind, reason, count) for (kind, reason), count in passed_over.items()),
        )

    def _put_back(self) -> None:
        if self._injector is not None:
            self._injector.stop()

    def _hear(self, record: FaultRecord) -> None:
        with self._state:
            _, is_told = self._under_way.pop(record.seed, (record, False))
            if record.ended_seconds is None:
                self._under_way[record.seed] = (record, is_told)
            elif record.began_seconds is not None or record.failure:
                self._ended.append(record)

    def _hear_passed_over(self, kind: FaultKind, reason: str) -> None:
        with self._state:
            self._passed_over[kind, reason] += 1

    def _event(self, record: FaultRecord) -> Event:
        began = record.began_seconds if record.began_seconds is not None else record.ended_seconds
        until = None if record.ended_seconds is None else self._wall(record.ended_seconds)
        return Event(EventKind.FAULT, _sentence(record), self._wall(began), until)

    def _passed_over_event(self, kind: FaultKind, reason: str, count: int) -> Event:
        times = "" if count == 1 else f" {count} times"
        return Event(EventKind.FAULT, f"{_named(kind)} was due{times} and did not come: {reason}.", self._clock.now())

    def _wall(self, monotonic_seconds: float | None) -> datetime:
        at = time.monotonic() if monotonic_seconds is None else monotonic_seconds
        return self._clock.now() - timedelta(seconds=time.monotonic() - at)


def _sentence(record: FaultRecord) -> str:
    name = _named(record.kind)
    if record.failure:
        return f"{name} could not be done, or was lost on the way: {record.failure}"
    if record.ended_seconds is None:
        return f"{name} began, and is under way."
    return f"{name}, which reached {record.reached_total}."


def _named(kind: str) -> str:
    return f"Fault {kind.replace('_', ' ')}"


def kept_faults(faults: FaultList = NO_FAULTS) -> dict[str, object]:
    """Return what a run's description keeps of its faults, JSON-ready; nothing where there are none."""
    return {"faults": [dict(table) for table in faults.tables]} if faults.tables else {}
