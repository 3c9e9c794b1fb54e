"""What every fault must do: strike the real load on a real server, and leave nothing behind, however it ends."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.workload import LoadGenerator, LoadPlan, OperationKind, OperationMix, create_tables
from ml_postgres_optimization.workload.faults import (
    CommitCut,
    ConnectionExhaustion,
    CrashWay,
    Deadlock,
    Fault,
    FaultGround,
    FaultInjector,
    FaultKind,
    FaultProxy,
    FaultRate,
    FaultRun,
    FaultSchedule,
    LineCut,
    LineDelay,
    LineSilence,
    LockStall,
    LostCommits,
    ReadOnlyDatabase,
    SerialisationConflict,
    ServerCrash,
    ServerRestart,
    StandbyRefusal,
    Termination,
)

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_DURABILITY = {"fsync": "off", "full_page_writes": "off"}
MOVES = OperationMix({OperationKind.TRANSACTION: 2, OperationKind.UPDATE: 1, OperationKind.READ: 1})
UPDATES = OperationMix({OperationKind.UPDATE: 1})
# lock_timeout is longer than the server's deadlock_timeout, so that deadlocks are found
PLAIN = LoadPlan(MOVES, rate_per_second=400.0, connections=4, processes=1, session_settings={"lock_timeout": "400ms"})
PLANS = {
    "plain": PLAIN,
    "line": PLAIN,
    # one session alone: two would conflict with each other
    "snapshot": LoadPlan(
        UPDATES,
        rate_per_second=400.0,
        connections=1,
        processes=1,
        session_settings={"statement_timeout": "60ms", "default_transaction_isolation": "repeatable read"},
    ),
}
LOST = {"57P02", "08003", "08006"}
REFUSED = {"08001", "57P03", "08006", "08003"}


@dataclass(frozen=True)
class Case:
    """A fault, the load that it strikes, and what that must see.

    One of the SQLSTATEs, in its operations or when it connects; or an operation that takes longer; or, where a server
    is back before anybody asks for it, a connection that is lost.
    """

    fault: Fault
    operations: set[str] = field(default_factory=set, hash=False)
    connections: set[str] = field(default_factory=set, hash=False)
    load: str = "plain"
    takes_seconds: float = float("inf")
    loses_connections: bool = False


CASES = {
    "termination": Case(Termination(count=100, seconds=20.0), {"57P01"}),
    "deadlock": Case(Deadlock(seconds=20.0), {"40P01"}),
    "conflict": Case(SerialisationConflict(count=3, seconds=10.0), {"40001"}, load="snapshot"),
    "exhaustion": Case(ConnectionExhaustion(seconds=20.0), connections={"53300"}),
    "lock time-out": Case(LockStall(seconds=20.0), {"55P03"}),
    "statement time-out": Case(LockStall(seconds=20.0, is_whole_table=True), {"57014"}, load="snapshot"),
    "restart": Case(ServerRestart(seconds=20.0), connections=REFUSED),
    "crash of a backend": Case(ServerCrash(CrashWay.BACKEND), LOST, REFUSED, loses_connections=True),
    "immediate stop": Case(ServerCrash(CrashWay.IMMEDIATE, seconds=20.0), connections=REFUSED),
    "crash of the postmaster": Case(ServerCrash(CrashWay.POSTMASTER, seconds=20.0), LOST, REFUSED),
    "standby": Case(StandbyRefusal(seconds=20.0), {"25006"}, load="line"),
    "read-only database": Case(ReadOnlyDatabase(seconds=20.0), {"25006"}),
    "cut line": Case(LineCut(seconds=20.0), connections=REFUSED, load="line"),
    "silent line": Case(LineSilence(seconds=0.4), load="line", takes_seconds=0.2),
    "slow line": Case(LineDelay(0.05, seconds=20.0), load="line", takes_seconds=0.1),
    "lost commits": Case(LostCommits((CommitCut.ANSWERED,), seconds=20.0), LOST, load="line"),
}
every_fault = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


class Arena:
    """A server with an ordinary role, and for each load a database; a load rests while nobody looks at it."""

    def __init__(self, server: EmbeddedServer, folder: Path, system_state: Path) -> None:
        self.server = server
        self._folder = folder
        self._system_state = system_state
        self._lines: list[FaultProxy] = []
        self._loads: dict[str, LoadGenerator] = {}
        self._standby: EmbeddedServer | None = None
        run(server.dsn, "CREATE ROLE ordinary LOGIN")
        run(server.dsn, "CREATE DATABASE plain OWNER ordinary")
        create_tables(self.dsn("plain"), 0.005)
        for name in PLANS.keys() - {"plain"}:
            run(server.dsn, f"CREATE DATABASE {name} TEMPLATE plain OWNER ordinary")
        self._lines.append(FaultProxy(self.dsn("line")))

    def dsn(self, load: str) -> str:
        return make_conninfo(self.server.dsn, dbname=load, user="ordinary")

    def ground(self, case: Case) -> FaultGround:
        standby = self.standby.dsn if isinstance(case.fault, StandbyRefusal) else None
        return FaultGround(self.dsn(case.load), PLANS[case.load], self.server, self._lines[0], standby)

    @property
    def line(self) -> FaultProxy:
        return self._lines[0]

    def has_no_clients(self) -> bool:
        with psycopg.connect(self.server.dsn) as connection:
            clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            return connection.execute(clients).fetchone() == (1,)

    @property
    def standby(self) -> EmbeddedServer:
        if self._standby is None:
            self._standby = self.server.start_standby(self._folder / "standby", system_state=self._system_state)
        return self._standby

    def load(self, name: str) -> LoadGenerator:
        if name not in self._loads:
            dsn = self._lines[0].dsn if name == "line" else self.dsn(name)
            self._loads[name] = LoadGenerator(dsn, PLANS[name])
            self._loads[name].start()
        self._loads[name].resume()
        return self._loads[name]

    def at_rest(self, database: str) -> dict[str, list[tuple[object, ...]]]:
        """Return what is there before a fault, when the sessions of the test before have gone."""
        until(lambda: not (self.traces(database)["sessions"] or self.traces(database)["locks"]))
        return self.traces(database)

    def traces(self, database: str) -> dict[str, list[tuple[object, ...]]]:
        """Return all that a fault could leave on the server."""
        questions = {
            "settings": "SELECT name, setting, source FROM pg_settings WHERE name !~ '^transaction_' ORDER BY 1",
            "own settings": "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
            "tables": "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^pg_' ORDER BY 1, 2",
            "sessions": "SELECT pid, query FROM pg_stat_activity WHERE application_name = 'genesis-fault'",
            "balance": "SELECT sum(balance) FROM genesis_load.accounts",
        }
        with psycopg.connect(make_conninfo(self.server.dsn, dbname=database), autocommit=True) as connection:
            found = {name: connection.execute(question).fetchall() for name, question in questions.items()}
            locks = "SELECT pid, mode FROM pg_locks WHERE pid <> pg_backend_pid() AND relation = %s::regclass"
            found["locks"] = connection.execute(locks, ["genesis_load.accounts"]).fetchall()
        return found

    def close(self) -> None:
        for load in self._loads.values():
            load.stop()
        for line in self._lines:
            line.__exit__(None, None, None)
        if self._standby is not None:
            self._standby.stop()


@pytest.fixture(scope="module")
def arena(binaries, module_folder, session_folder) -> Iterator[Arena]:
    settings = {**WITHOUT_DURABILITY, "max_connections": "25", "deadlock_timeout": "250ms", "autovacuum": "off"}
    state = session_folder / "system"
    with EmbeddedServer.start(
        module_folder / "server", binaries=binaries, settings=settings, system_state=state
    ) as server:
        arena = Arena(server, module_folder, state)
        try:
            yield arena
        finally:
            arena.close()


def run(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement)


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def runs_without_errors(load, operations=20):
    """Wait until so many operations in a row have succeeded and no connection was lost meanwhile."""

    def troubles():
        counters = load.counters
        return counters.failed_total, counters.connections_lost_total, dict(counters.connection_failures)

    deadline = time.monotonic() + 30.0
    while True:
        before, succeeded = troubles(), load.counters.succeeded_total
        until(lambda aim=succeeded + operations: load.counters.succeeded_total >= aim)
        if troubles() == before:
            return
        assert time.monotonic() < deadline, f"it goes on failing: {before} {troubles()}"


class Seen:
    """What a load has met since it was asked first."""

    def __init__(self, load):
        self._load = load
        load.samples()
        self._before = dict(load.counters.connection_failures)
        self._lost_before = load.counters.connections_lost_total
        self.operations = set()
        self.longest_seconds = 0.0

    def look(self):
        for batch in self._load.samples():
            if len(batch):
                self.longest_seconds = max(self.longest_seconds, *(batch.end_seconds - batch.start_seconds))
            self.operations |= {code.decode() for code in batch.sqlstate.tolist() if code}
        return self

    @property
    def has_lost_connections(self):
        return self._load.counters.connections_lost_total > self._lost_before

    @property
    def connections(self):
        now = self._load.counters.connection_failures
        return {code for code, count in now.items() if count > self._before.get(code, 0)}


def is_met(case, seen):
    seen.look()
    fails = case.operations & seen.operations or case.connections & seen.connections
    is_lost = case.loses_connections and seen.has_lost_connections
    return bool(fails) or is_lost or seen.longest_seconds >= case.takes_seconds


@every_fault
def test_it_strikes_the_load_and_leaves_nothing(case, arena):
    ground, before = arena.ground(case), arena.at_rest(case.load)
    load = arena.load(case.load)
    try:
        runs_without_errors(load)
        seen = Seen(load)
        with FaultRun.begin(case.fault, ground, seed=1) as fault:
            assert fault.record.began_seconds is not None
            until(lambda: is_met(case, seen) or fault.record.failure)
        record = fault.record
        assert fault.end() == record == fault.end()
        assert record.failure is None
        assert record.reached_total >= 1
        assert record.began_seconds < record.ended_seconds < record.began_seconds + 20.0
        assert arena.line.is_whole
        runs_without_errors(load)
    finally:
        load.pause()
    until(lambda: arena.traces(case.load) == before)
    assert not load.failed


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=kind) for kind, case in {case.fault.kind: case for case in CASES.values()}.items()]
)
def test_it_ends_with_the_block_whatever_ends_that(case, arena):
    """With no load there is nobody to strike, and the server is as busy as it ever is with the fault alone."""
    ground = arena.ground(case)
    before = arena.at_rest(case.load)
    with pytest.raises(ZeroDivisionError), FaultRun.begin(case.fault, ground) as fault:
        # whoever has begun it finds the deed done
        assert arena.line.is_whole != (case.load == "line")
        assert arena.server.is_running != (case.fault.kind in {FaultKind.RESTART, FaultKind.CRASH})
        raise ZeroDivisionError
    assert fault.has_ended
    assert fault.record.failure is None
    assert arena.line.is_whole
    until(lambda: arena.traces(case.load) == before)


@pytest.mark.parametrize(
    "fault",
    [
        Deadlock(seconds=0.2),
        ConnectionExhaustion(displaced=0, seconds=0.2),
        ReadOnlyDatabase(seconds=0.2),
    ],
    ids=lambda fault: fault.kind,
)
def test_it_ends_by_itself_when_its_time_is_over(fault, arena):
    before = arena.at_rest("plain")
    record = FaultRun.begin(fault, arena.ground(Case(fault))).wait()
    assert record.failure is None
    assert record.ended_seconds - record.began_seconds >= 0.2
    until(lambda: arena.traces("plain") == before)


@pytest.mark.parametrize(
    "fault", [LockStall(seconds=30.0), Deadlock(seconds=30.0), ConnectionExhaustion(displaced=0, seconds=30.0)]
)
def test_sessions_of_a_fault_that_are_lost_are_told_and_leave_nothing(fault, arena):
    before = arena.at_rest("plain")
    with FaultRun.begin(fault, arena.ground(Case(fault))) as begun:
        run(
            arena.server.dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'genesis-fault'",
        )
        until(lambda: not arena.traces("plain")["sessions"])
    assert isinstance(fault, ConnectionExhaustion) or "lost" in begun.record.failure
    until(lambda: arena.traces("plain") == before)


# nobody ends the faults here: the end of the program must
PROGRAM = """
import time
from ml_postgres_optimization.workload.faults import *
ground = FaultGround({dsn!r})
for fault in (LockStall(60.0, {account}), ConnectionExhaustion(0, count=3, seconds=60.0)):
    FaultRun.begin(fault, ground)
    print("begun", flush=True)
time.sleep(60)
"""


def test_it_does_not_outlive_its_process(arena):
    before = arena.at_rest("plain")
    with ExitStack() as programs:
        begun = [programs.enter_context(a_program(arena.dsn("plain"), account)) for account in (1, 2)]
        for program in begun:
            assert [program.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        assert len(arena.traces("plain")["sessions"]) == 2 * (2 + 4)
        for program, number in zip(begun, (signal.SIGINT, signal.SIGKILL), strict=True):
            program.send_signal(number)
        for program in begun:
            program.wait(timeout=30)
        until(lambda: arena.traces("plain") == before)


@contextmanager
def a_program(dsn, account):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(dsn=dsn, account=account)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def test_a_schedule_runs_beside_a_load(arena):
    ground = arena.ground(CASES["termination"])
    rates = (
        FaultRate(Termination(seconds=0.5), per_minute=400.0),
        FaultRate(LockStall(seconds=0.05), per_thousand_operations=20.0),
    )
    load, told = arena.load("plain"), []
    try:
        runs_without_errors(load)
        injector = FaultInjector(
            FaultSchedule(rates, seconds=30.0, seed=3),
            ground,
            operations=lambda: load.counters.succeeded_total,
            tell=told.append,
        )
        with injector:
            until(lambda: {FaultKind.TERMINATION, FaultKind.LOCK_STALL} <= {record.kind for record in told})
        assert injector.has_ended
        assert all(record.ended_seconds is not None for record in injector.records)
        assert {record.kind for record in injector.records} == {"termination", "lock_stall"}
        # each is told twice: when it is in force, and when everything is put back
        assert len(told) == 2 * len(injector.records)
        runs_without_errors(load)
    finally:
        load.pause()
    assert not load.failed
    until(lambda: not arena.traces("plain")["sessions"])


def test_a_session_of_anybody_else_is_never_ended(arena):
    with (
        psycopg.connect(arena.dsn("plain"), application_name="genesis-pg") as tuner,
        psycopg.connect(arena.dsn("plain"), application_name="shop") as user,
        psycopg.connect(arena.dsn("line"), application_name="genesis-load") as other_load,
    ):
        fault = Termination(count=100, seconds=0.1)
        record = FaultRun.begin(fault, arena.ground(Case(fault))).wait()
        assert (record.failure, record.reached_total) == (None, 0)
        assert all(session.execute("SELECT 1").fetchone() for session in (tuner, user, other_load))


def test_a_superusers_connections_cannot_be_exhausted(arena):
    with pytest.raises(UsageError, match="superuser"):
        FaultRun.begin(ConnectionExhaustion(), FaultGround(make_conninfo(arena.server.dsn, dbname="plain")))
    # a session that is only just closing would have its place among those that are not free
    until(arena.has_no_clients)
    with (
        FaultRun.begin(ConnectionExhaustion(displaced=0, seconds=20.0), arena.ground(Case(Termination()))),
        psycopg.connect(arena.server.dsn) as superuser,
    ):
        reserved = superuser.execute("SHOW superuser_reserved_connections").fetchone()[0]
        taken = superuser.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        assert taken.fetchone()[0] == 25 - int(reserved) + 1
        with pytest.raises(psycopg.OperationalError, match="slots"):
            psycopg.connect(arena.dsn("plain"))


def test_a_setting_of_the_users_is_there_again(arena):
    run(arena.server.dsn, "ALTER DATABASE plain SET default_transaction_read_only = 'off'")
    try:
        before = arena.at_rest("plain")
        with FaultRun.begin(ReadOnlyDatabase(seconds=20.0), arena.ground(CASES["read-only database"])):
            assert run(arena.dsn("plain"), "SHOW default_transaction_read_only").fetchone() == ("on",)
        until(lambda: arena.traces("plain") == before)
    finally:
        run(arena.server.dsn, "ALTER DATABASE plain RESET default_transaction_read_only")
