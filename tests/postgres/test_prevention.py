"""Prevention on a real server: what is kept of it, a session that is ended, and a danger that faults bring."""

import random
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest
import structlog
from command_line import CommandLine, clean_environment
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from test_tuning import ground_on

from ml_postgres_optimization.errors import PrivilegeMissing, ServerUnreachable
from ml_postgres_optimization.interfaces.preventing.opening import symptoms_on
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import observations
from ml_postgres_optimization.models.observation import Observation, Prediction
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.safety.undo import undo_unfinished
from ml_postgres_optimization.target.postgres.collector import blockers
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import PreventionRecord, Repository
from ml_postgres_optimization.target.postgres.schema import install_schema
from ml_postgres_optimization.target.seen import Blocker
from ml_postgres_optimization.tuning.preventing import Choice, Danger, Foresight, Means, Patience, Preventer, savings
from ml_postgres_optimization.tuning.preventing.levers import EndBlocker, FewerAtOnce, LessMemory
from ml_postgres_optimization.workload import OperationKind, OperationMix
from ml_postgres_optimization.workload.faults import FaultGround, LockStall, Spell

START = datetime(2026, 3, 1, tzinfo=UTC)
BEFORE, AFTER = Configuration({"work_mem": 4096}), Configuration({"work_mem": 2048})
UPDATES = OperationMix({OperationKind.UPDATE: 1})


def record(number, choice, errors, **more):
    told = {
        "run": "r1",
        "began_at": START + timedelta(minutes=number),
        "ended_at": START + timedelta(minutes=number, seconds=60),
        "error_class": "deadlock",
        "probability": 0.7,
        "low": 0.5,
        "high": 0.8,
        "level": 0.9,
        "threshold": 0.5,
        "source": "errors-1",
        "lever": "memory",
        "deed": "less",
        "ending": "the danger is past",
        "before": BEFORE,
        "after": None if choice == "advised" else AFTER,
        "windows": 6,
        "operations": 1000 + number,
        "response_seconds": 1.5,
        "is_whole": True,
    }
    return PreventionRecord(id=f"{number:04}-prevention", choice=str(choice), errors=errors, **(told | more))


@pytest.fixture
def repository(database):
    with connect(ConnectionSettings.from_dsn(database)) as connection:
        install_schema(connection)
        yield Repository(connection)


def some_records(seed):
    rng = random.Random(seed)
    for number in range(60):
        choice = rng.choice([*Choice])
        yield record(
            number,
            choice,
            rng.choice([0, 0, 3]),
            error_class=rng.choice(["deadlock", "timeout"]),
            due=1000,
            undone=rng.choice([-5, 20, 100, 101, 700]),
            is_whole=rng.random() < 0.9,
        )


def test_what_is_kept_comes_back_and_the_view_says_what_the_ledger_says(repository, database):
    records = [*some_records(1), record(98, "acted", 2, error_class="resources")]
    for one in records:
        repository.add_prevention(one)
    assert repository.preventions() == records
    with psycopg.connect(database, row_factory=dict_row) as connection:
        shown = {
            row["error_class"]: row
            for row in connection.execute("SELECT * FROM genesis.prevention_savings").fetchall()
        }
    found = savings(records)
    assert {saving.error_class for saving in found} == shown.keys() == {"deadlock", "resources", "timeout"}
    for saving in found:
        row = shown[saving.error_class]
        assert (row["acted"], row["held_out"]) == (saving.acted.occasions, saving.held_out.occasions)
        assert row["verdict"] == saving.verdict
        assert float(row["acted_undone_percent"] or 0) == pytest.approx(
            100 * saving.acted.undone / (saving.acted.due or 1), abs=0.06
        )
        if saving.held_out.occasions:
            assert [row["difference"], row["low"], row["high"]] == pytest.approx(list(saving.difference), abs=1e-6)
            assert float(row["held_out_errors_per_1000"]) == pytest.approx(saving.held_out.errors_per_1000, abs=1e-3)
            assert float(row["held_out_error_percent"]) == pytest.approx(100 * saving.held_out.error_share, abs=0.06)
        else:
            assert row["low"] is None
    recent = record(99, "advised", 0, began_at=datetime.now(UTC))
    repository.add_prevention(recent)
    with psycopg.connect(database) as connection:
        connection.execute("SELECT genesis.maintain()")
    kept = [one for one in records if one.choice != Choice.ADVISED]
    assert repository.preventions() == [*kept, recent], "advice that has expired is gone, and nothing else"


def test_what_came_of_an_occasion_completes_it(repository):
    begun = record(1, "acted", 0, ended_at=None, ending="", windows=0, operations=0, is_whole=False)
    repository.add_prevention(begun)
    assert repository.preventions() == [begun]
    ended = record(1, "acted", 4)
    repository.add_prevention(ended)
    repository.add_prevention(ended)
    assert repository.preventions() == [ended]


def test_history_shows_what_was_saved(monkeypatch, capsys, tmp_path, database, repository):
    clean_environment(monkeypatch, tmp_path / "home")
    here = CommandLine(capsys, tmp_path / "home", database)
    assert "What prevention saved" not in here("history").done().out
    for number in range(25):
        held_out = number % 5 == 0
        repository.add_prevention(record(number, "held out" if held_out else "acted", 7 if held_out else 0))
    shown = here("history").done().out
    assert "What prevention saved" in shown
    assert "saved" in shown
    told = here("history", "--json", "--limit", "2").done().document["prevention"]
    assert (told["occasions"], len(told["last"])) == (25, 2)
    (saving,) = told["savings"]
    assert saving["verdict"] == "saved"
    assert saving["difference"]["high"] < 0
    assert (saving["acted"]["errors_per_1000"], saving["held_out"]["occasions"]) == (0.0, 5)


def test_ending_sessions_is_refused_where_nobody_would(monkeypatch, capsys, tmp_path, database):
    clean_environment(monkeypatch, tmp_path / "home")
    here = CommandLine(capsys, tmp_path / "home", database)
    here("optimize", "--prevent-terminate").is_refused(2, "--prevent-terminate", "--continuous")
    here("optimize", "--prevent", "perhaps").is_refused(2, "--prevent", "perhaps")
    here("optimize", "--prevent-vacuum").is_refused(2, "--prevent-vacuum", "--continuous")
    here("optimize", "--prevent-role", "app").is_refused(2, "--prevent-role", "--continuous")
    acting = ("optimize", "--continuous", "--prevent-role")
    here(*acting, "nobody").is_refused(2, "'nobody'", "no such role")
    here(*acting, "postgres").is_refused(2, "'postgres'", "a superuser")


PATIENCE = Patience(rising=1, horizon=2, calm=1, longest=6)
LOCK = "SELECT FROM genesis_load.accounts WHERE account_id = %s FOR UPDATE"


def preventer_on(ground, means, told, *, rng=None):
    return Preventer(
        ground.laboratory,
        means,
        rng=rng or random.Random(1),  # whose first lot is to act
        patience=PATIENCE,
        subscribers=[lambda occasion, message: told.append((occasion, message))],
    )


def pass_window(ground, preventer, seconds, *, anew):
    window = ground.laboratory.watch(seconds, preventer.standing(ground.initial), anew=anew)
    preventer.see(window, ground.initial)
    return window


def application_of(dsn):
    """Return the DSN of a role of an application's, which is no superuser."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE ROLE application LOGIN")
    return make_conninfo(dsn, user="application")


def allow(dsn):
    with psycopg.connect(dsn) as connection:
        connection.execute("GRANT USAGE ON SCHEMA genesis_load TO application")
        connection.execute("GRANT SELECT, UPDATE ON genesis_load.accounts TO application")


SHARED = "SELECT pg_advisory_lock(7)"


@contextmanager
def idle_holder(dsn, application_name):
    """A session that is idle in a transaction, and keeps another of the same database waiting."""
    with (
        psycopg.connect(dsn, application_name=application_name) as idle,
        psycopg.connect(dsn, autocommit=True) as waiting,
    ):
        idle.execute(SHARED)
        thread = threading.Thread(target=waiting.execute, args=[SHARED])
        thread.start()
        try:
            yield idle
        finally:
            if not idle.closed:
                idle.close()
            thread.join()


def seen_by(connection, wanted):
    """Ask until somebody is seen, or nobody was though somebody waits; at most 5 s."""
    for _ in range(100):
        found = blockers.find_blocker(connection)
        waits = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]
        is_idle = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND pid = %s", [wanted]
        ).fetchone()[0]
        if found is not None or (waits and is_idle):
            return found or blockers.find_blocker(connection)
        threading.Event().wait(0.05)
    raise AssertionError("nobody waits")


def test_only_an_applications_session_of_this_database_is_seen_and_ended(own_server, monkeypatch):
    monkeypatch.setattr(blockers, "_IDLE_SECONDS", 0.0)
    application = application_of(own_server.dsn)
    with psycopg.connect(own_server.dsn, autocommit=True) as ours:
        ours.execute("CREATE DATABASE elsewhere")
        for dsn, name in (
            (own_server.dsn, "a superuser"),
            (make_conninfo(application, dbname="elsewhere"), "elsewhere"),
            (application, "genesis-load"),
            (application, "pg_dumpall"),
            (application, "shop"),
        ):
            with idle_holder(dsn, name) as idle:
                found = seen_by(ours, idle.info.backend_pid)
                pid, backend_start, idle_since = ours.execute(
                    "SELECT pid, backend_start, state_change FROM pg_stat_activity WHERE pid = %s",
                    [idle.info.backend_pid],
                ).fetchone()
                as_it_is = Blocker(pid, backend_start, idle_since, "", "", 1.0, 1)
                assert (found is not None) == (name == "shop"), name
                assert not blockers.end_session_of(ours, replace(as_it_is, idle_since=START)), "in another pause"
                assert blockers.end_session_of(ours, as_it_is) == (name == "shop"), name


class Refusing:
    """A server that refuses to look, or is gone."""

    def __init__(self, error):
        self._error = error

    def blocker(self):
        raise self._error


def test_whoever_may_not_look_for_blockers_sees_nobody(own_server, tmp_path):
    with ground_on(own_server.dsn, tmp_path) as ground:
        window = ground.laboratory.watch(0.2, ground.initial, anew=True)
    waits = {"activity.blocked_sessions": 1.0, "activity.idle_in_transaction_sessions": 1.0}
    window = replace(window, gauges={**window.gauges, **waits})
    with structlog.testing.capture_logs() as logged:
        refused = Refusing(PrivilegeMissing("The role may not.", "Grant it."))
        assert symptoms_on(refused, window, log=structlog.get_logger()) == ()
    assert [line["what"] for line in logged] == ["The role may not."]
    with pytest.raises(ServerUnreachable):
        symptoms_on(Refusing(ServerUnreachable("It is gone.", "Wait.")), window, log=structlog.get_logger())


@pytest.mark.parametrize("is_permitted", [False, True])
def test_an_idle_blocker_is_ended_by_permission_only(own_server, tmp_path, monkeypatch, is_permitted):
    monkeypatch.setattr(blockers, "_IDLE_SECONDS", 0.2)
    told = []
    application = application_of(own_server.dsn)
    with ground_on(own_server.dsn, tmp_path, mix=UPDATES) as ground, psycopg.connect(application) as idle:
        allow(own_server.dsn)
        (popular,) = FaultGround(own_server.dsn, ground.load.plan).popular_accounts(idle, 1)
        idle.execute(LOCK, [popular])
        sessions = partial(symptoms_on, ground.target, log=structlog.get_logger())
        means = Means([EndBlocker(is_permitted=is_permitted)], symptoms=sessions, server=ground.target)
        preventer = preventer_on(ground, means, told)
        for number in range(10):
            pass_window(ground, preventer, 0.4, anew=number == 0)
            if told:
                break
        occasion, message = told[0]
        assert f"session {idle.info.backend_pid} of role" in message
        if not is_permitted:
            assert occasion.choice is Choice.ADVISED
            assert f"pg_terminate_backend({idle.info.backend_pid})" in message
            assert idle.execute("SELECT 1").fetchone() == (1,)
            assert not ground.target.end_blocker(occasion.danger.blocker), "it has gone on"
            assert idle.execute("SELECT 1").fetchone() == (1,)
            return
        assert occasion.choice is Choice.ACTED
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")
        while preventer.is_open:
            pass_window(ground, preventer, 0.4, anew=False)
        assert not ground.target.end_blocker(occasion.danger.blocker), "it is gone"
        assert told[-1][0].is_whole
        assert told[-1][0].errors == 0
        assert told[-1][0].operations > 10
        idle.close()


def foretold(_window):
    return [Danger(ErrorClass.RESOURCES, Prediction(0.9, 0.8, 1.0), "errors-1")]


class HalfOfMemory(LessMemory):
    """The lever as it is where memory is short."""

    def offer(self, danger, sight):
        return super().offer(danger, replace(sight, window=replace(sight.window, errors={"53200": 1})))


def test_what_a_killed_run_left_in_force_is_put_back_by_the_next_start(own_server, tmp_path):
    told = []

    def work_mem():
        with psycopg.connect(own_server.dsn) as fresh:
            return fresh.execute("SHOW work_mem").fetchone()[0]

    with ground_on(own_server.dsn, tmp_path) as ground:
        usual = work_mem()
        preventer = preventer_on(ground, Means([HalfOfMemory()], symptoms=foretold), told)
        pass_window(ground, preventer, 0.3, anew=True)
        assert told[0][0].choice is Choice.ACTED
        assert (usual, work_mem()) == ("4MB", "2MB")
        assert ground.in_force() == preventer.standing(ground.initial) == told[0][0].after
        # killed here: nobody leaves the context
        (undone,) = undo_unfinished(ground.target, ground.journal)
        assert undone.trial_id == told[0][0].id
        assert work_mem() == usual
        assert not ground.journal.state.unfinished


class Stalls:
    """Lock stalls one after the other, in a thread: the load's time-outs come a while after each has begun."""

    def __init__(self, dsn, plan):
        self._ground, self._rng = FaultGround(dsn, plan), random.Random(3)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._over.wait(self._rng.uniform(0.8, 2.0)):
            fault = LockStall(self._rng.uniform(0.3, 2.0))
            fault.happen(self._ground, Spell(fault.seconds))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


@pytest.mark.long
def test_a_forest_that_has_learned_from_faults_has_a_lever_pulled_and_put_back(own_server, tmp_path):
    told, limited = [], []
    # what runs into the limit is seen to wait before
    limit = {"lock_timeout": "500ms"}
    with (
        ground_on(own_server.dsn, tmp_path, mix=UPDATES, session_settings=limit) as ground,
        Stalls(own_server.dsn, ground.load.plan),
    ):
        for number in range(320):
            ground.laboratory.watch(0.25, ground.initial, anew=number == 0)
        seen = observations(ground.store.windows(), {ground.initial.id: ground.initial})
        model = ErrorForest.fit(seen, seed=1)
        assert model.score[ErrorClass.TIMEOUT].beats_naive, model.score

        def foresee(window):
            return Foresight(model, "errors-1", Observation(ground.initial, window))

        with preventer_on(ground, Means([FewerAtOnce()], foresee), told) as preventer:
            for _ in range(160):
                pass_window(ground, preventer, 0.25, anew=False)
                limited.append((preventer.is_open, ground.load.plan.ceiling))
    assert {ceiling for is_open, ceiling in limited if not is_open} == {None}
    began = [occasion for occasion, _ in told if occasion.ended_at is None]
    ended = [occasion for occasion, _ in told if occasion.ended_at is not None]
    assert len(began) == len(ended) >= 3
    assert {occasion.choice for occasion in began} == {Choice.ACTED, Choice.HELD_OUT}
    assert any(ceiling is not None and ceiling < ground.initial[CONCURRENCY] for _, ceiling in limited)
    assert all(occasion.danger.probability.value >= 0.5 for occasion in began)
    assert not ground.journal.state.unfinished
    print(
        [(saving.acted, saving.held_out, saving.difference, saving.verdict) for saving in savings(_Kept.all(ended))]
    )


class _Kept:
    """An occasion as the ledger takes it."""

    def __init__(self, occasion):
        self.error_class, self.choice = str(occasion.danger.error_class), str(occasion.choice)
        self.errors, self.operations = occasion.errors, occasion.operations
        self.response_seconds, self.is_whole = occasion.response_seconds, occasion.is_whole
        self.due, self.undone = occasion.due, occasion.undone

    @classmethod
    def all(cls, occasions):
        return [cls(occasion) for occasion in occasions]
