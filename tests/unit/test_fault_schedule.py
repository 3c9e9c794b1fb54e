"""Which faults come when, who may be struck, and an injector that nothing upsets; no server is needed."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import FrozenInstanceError, dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from ml_postgres_optimization.errors import ServerUnreachable, UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.telemetry import VirtualClock
from ml_postgres_optimization.workload.faults import (
    ConnectionExhaustion,
    CrashWay,
    Deadlock,
    FaultGround,
    FaultInjector,
    FaultKind,
    FaultProxy,
    FaultRate,
    FaultRun,
    FaultSchedule,
    LineCut,
    LineDelay,
    LockStall,
    LostCommits,
    ReadOnlyDatabase,
    ServerCrash,
    ServerRestart,
    StandbyRefusal,
    Termination,
)
from ml_postgres_optimization.workload.faults.injecting.schedule import Agenda
from ml_postgres_optimization.workload.faults.locality import check_arrived

GROUND = FaultGround("host=/nowhere dbname=shop")


@dataclass(frozen=True, slots=True)
class RehearsedOutage:
    """A fault that would strike the server itself."""

    kind: ClassVar[FaultKind] = FaultKind.RESTART
    seconds: float = 60.0

    def check(self, ground):
        """Accept every ground."""

    def happen(self, ground, spell):
        spell.begin()
        spell.wait()
        return 1


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A fault that only takes its time, and may fail at it."""

    kind: ClassVar[FaultKind] = FaultKind.LOCK_STALL
    seconds: float = 60.0
    fails: bool = False

    def check(self, ground):
        """Accept every ground."""

    def happen(self, ground, spell):
        spell.begin()
        if self.fails:
            raise OSError("no\nluck")
        spell.wait()
        return 7


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_the_same_seed_gives_the_same_faults_at_the_same_times():
    rates = (FaultRate(Termination(), per_minute=30.0), FaultRate(LockStall(), per_minute=10.0))
    schedule = FaultSchedule(rates, seconds=600.0, seed=5)
    drawn = list(schedule.by_time())
    assert drawn == list(FaultSchedule(rates, seconds=600.0, seed=5).by_time())
    assert drawn == sorted(drawn)
    assert {occurrence.due for occurrence in drawn}.isdisjoint(
        occurrence.due for occurrence in FaultSchedule(rates, seconds=600.0, seed=6).by_time()
    )
    # a Poisson process: 300 and 100 expected, five standard deviations around
    counts = Counter(occurrence.place for occurrence in drawn)
    assert abs(counts[0] - 300) < 87
    assert abs(counts[1] - 100) < 50
    assert max(occurrence.due for occurrence in drawn) < 600.0
    assert len({occurrence.seed for occurrence in drawn}) == len(drawn)
    # a longer schedule begins alike, and another kind after it disturbs nothing
    longer = FaultSchedule((*rates, FaultRate(Deadlock(), per_minute=60.0)), seconds=1200.0, seed=5)
    kept = [occurrence for occurrence in longer.by_time() if occurrence.place < 2 and occurrence.due < 600.0]
    assert kept == drawn


def test_faults_come_by_operations_too():
    schedule = FaultSchedule((FaultRate(Termination(), per_thousand_operations=5.0),), seconds=10.0, seed=1)
    assert schedule.counts_operations
    assert list(schedule.by_time()) == []
    first = list(islice(schedule.by_operations(), 400))
    assert abs(first[-1].due / 400 - 200.0) < 50.0
    agenda = Agenda(schedule)
    assert agenda.take(1e9, 0) == []
    assert agenda.take(0.0, int(first[2].due) + 1) == first[:3]
    assert agenda.take(0.0, int(first[2].due) + 1) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: FaultRate(Termination()),
        lambda: FaultRate(Termination(), per_minute=1.0, per_thousand_operations=1.0),
        lambda: FaultRate(Termination(), per_minute=-1.0),
        lambda: FaultRate(Termination(), per_minute=float("nan")),
        lambda: FaultSchedule((), seconds=1.0),
        lambda: FaultSchedule((FaultRate(Termination(), per_minute=1.0),), seconds=0.0),
        lambda: FaultSchedule((FaultRate(Termination(), per_minute=1.0),), seconds=1.0, most_at_once=0),
        lambda: Termination(count=0),
        lambda: Termination(count=True),
        lambda: Deadlock(seconds=float("inf")),
        lambda: LockStall(seconds=-1.0),
        lambda: ConnectionExhaustion(displaced=-1),
        lambda: ServerRestart(seconds=1e9),
        lambda: ServerCrash("by magic"),
        lambda: LineDelay(delay_seconds=-0.1),
        lambda: LostCommits(ways=()),
        lambda: LostCommits(ratio=2.0),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(UsageError):
        make()


def test_a_fault_is_a_frozen_value():
    assert Termination(count=2) == Termination(count=2)
    assert len({ServerCrash(CrashWay.BACKEND), ServerCrash(), LineCut()}) == 2
    with pytest.raises(FrozenInstanceError):
        Termination().count = 3


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://db.example/shop",
        "host=10.0.0.1",
        "host=localhost,db.example",
        "host=localhost hostaddr=10.0.0.1",
        "hostaddr=192.168.1.1",
        "dbname=shop",
        "service=shop",
    ],
)
def test_a_server_elsewhere_is_never_struck(dsn):
    with pytest.raises(UsageError, match="this machine"):
        FaultGround(dsn)
    with pytest.raises(UsageError, match="this machine"):
        FaultGround("host=localhost", standby_dsn=dsn)
    with pytest.raises(UsageError, match="this machine"):
        FaultProxy(dsn)


@pytest.mark.parametrize("dsn", ["host=/tmp", "host=127.0.0.1,::1", "hostaddr=127.0.0.3", "postgresql://localhost/x"])
def test_a_server_here_may_be(dsn):
    assert FaultGround(dsn).dsn == dsn


@pytest.mark.parametrize(
    ("host", "address", "is_here"),
    [("/run", "", True), ("localhost", "127.0.0.1", True), ("localhost", "10.0.0.1", False), ("db", "::1", True)],
)
def test_where_a_connection_has_arrived_counts_whatever_was_named(host, address, is_here):
    """libpq goes to PGHOSTADDR, whatever the host; no test can count on a server elsewhere that answers."""
    arrived = SimpleNamespace(info=SimpleNamespace(host=host, hostaddr=address))
    with nullcontext() if is_here else pytest.raises(UsageError, match="this machine"):
        check_arrived(arrived, ConnectionSettings.from_dsn("host=localhost"))


def test_a_server_that_is_down_is_told_in_the_record():
    record = FaultRun(LockStall(seconds=0.1), GROUND).start().wait()
    assert "No connection" in record.failure
    assert record.began_seconds is None
    with pytest.raises(ServerUnreachable):
        FaultRun.begin(LockStall(seconds=0.1), GROUND)


@pytest.mark.parametrize("fault", [ServerRestart(), ServerCrash(), ReadOnlyDatabase(), LineCut(), StandbyRefusal()])
def test_a_fault_whose_ground_lacks_what_it_needs_is_refused_before_anything_happens(fault):
    with pytest.raises(UsageError):
        FaultRun(fault, GROUND)
    with pytest.raises(UsageError):
        FaultInjector(FaultSchedule((FaultRate(fault, per_minute=1.0),), seconds=1.0), GROUND)


def test_operations_that_nobody_counts_are_refused():
    schedule = FaultSchedule((FaultRate(Rehearsed(), per_thousand_operations=1.0),), seconds=1.0)
    with pytest.raises(UsageError, match="nobody counts"):
        FaultInjector(schedule, GROUND)


class Course:
    """An injector whose clock and operations the test moves."""

    def __init__(self, *faults, most_at_once=1, seconds=1000.0, **options):
        self.clock = VirtualClock()
        self.operations = 0
        self.told = []
        rates = tuple(FaultRate(fault, per_thousand_operations=100.0) for fault in faults)
        self.injector = FaultInjector(
            FaultSchedule(rates, seconds=seconds, most_at_once=most_at_once),
            GROUND,
            **{"operations": lambda: self.operations, "tell": self.told.append, "clock": self.clock} | options,
        )


def test_no_more_at_once_than_may_be_and_all_end_when_it_is_stopped():
    course = Course(Rehearsed(), most_at_once=3)
    with course.injector:
        course.operations = 200
        until(lambda: course.injector.passed_over_total > 0 and len(course.told) == 3)
        assert all(record.ended_seconds is None for record in course.injector.records)
    assert [record.reached_total for record in course.injector.records] == [7, 7, 7]
    assert all(record.began_seconds <= record.ended_seconds for record in course.injector.records)
    assert course.injector.last_failure is None
    course.injector.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fault-")]


def test_no_two_faults_strike_the_server_itself_at_once():
    course = Course(RehearsedOutage(), Rehearsed(seconds=0.0), most_at_once=5)
    with course.injector:
        course.operations = 200
        until(lambda: course.injector.passed_over_total >= 2 and len(course.injector.records) >= 4)
        assert course.injector.last_passed_over == "restart: restart was under way on the same server"
        assert Counter(record.kind for record in course.injector.records)["restart"] == 1
    assert all(kind.is_of_the_server == (kind in {"restart", "crash", "read_only"}) for kind in FaultKind)


def test_what_is_under_way_at_the_schedules_end_is_ended():
    course = Course(Rehearsed())
    with course.injector:
        course.operations = 50
        until(lambda: course.told)
        course.clock.sleep(1000.0)
        until(lambda: course.injector.has_ended)
        assert course.injector.records[0].ended_seconds is not None


def test_a_fault_that_fails_is_told_and_the_next_ones_come():
    course = Course(Rehearsed(fails=True), Rehearsed(seconds=0.0))
    with course.injector:
        until(lambda: bool(setattr(course, "operations", course.operations + 10)) or len(course.told) >= 8)
    failures = {record.failure for record in course.injector.records}
    assert failures == {"OSError: no luck", None}
    assert course.injector.last_failure is None


@pytest.mark.parametrize("broken", ["tell", "operations"])
def test_whoever_is_told_or_asked_may_fail(broken):
    def fail(*_):
        raise ArithmeticError("not my day")

    course = Course(Rehearsed(seconds=0.0), **{broken: fail})
    with course.injector:
        course.operations = 50
        until(lambda: course.injector.last_failure)
        assert not course.injector.has_ended
    assert course.injector.last_failure == "ArithmeticError: not my day"
    assert all(record.failure is None for record in course.injector.records)


def test_an_injector_that_breaks_ends_its_faults_and_says_why():
    class Broken(VirtualClock):
        def monotonic_seconds(self):
            if super().monotonic_seconds() > 0.0:
                raise ArithmeticError("no time")
            return 0.0

    clock = Broken()
    course = Course(Rehearsed(), clock=clock)
    with course.injector:
        course.operations = 50
        until(lambda: course.told)
        clock.sleep(1.0)
        until(lambda: course.injector.has_ended)
    assert course.injector.last_failure == "ArithmeticError: no time"
    assert course.injector.records[0].ended_seconds is not None


PROGRAM = """
from test_fault_schedule import GROUND, Rehearsed
from ml_postgres_optimization.workload.faults import FaultRun

FaultRun.begin(Rehearsed(), GROUND, tell=lambda record: print(record.ended_seconds is not None, flush=True))
raise KeyboardInterrupt
"""


def test_a_program_that_ends_without_ending_its_faults_waits_until_they_are_put_back():
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == ["False", "True"]
    assert "KeyboardInterrupt" in done.stderr


def test_a_schedule_that_is_taken_up_goes_on_where_it_would_be():
    schedule = FaultSchedule((FaultRate(LockStall(), per_minute=6.0),), seconds=600.0, seed=5)
    late = [occurrence for occurrence in schedule.by_time() if occurrence.due > 300.0]
    assert 10 < len(late) < len([*schedule.by_time()])
    assert Agenda(schedule, 300.0).take(600.0, 0) == late
