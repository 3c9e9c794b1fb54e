"""Going back to any moment, by hand: what is ours is put back, what is somebody else's survives and is told."""

import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment, rows, written_settings
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.interfaces.commands.online.rollback import roll_back
from ml_postgres_optimization.interfaces.home import resolve_home
from ml_postgres_optimization.interfaces.reporter import Silence
from ml_postgres_optimization.interfaces.session import open_session
from ml_postgres_optimization.interfaces.settings import load_settings
from ml_postgres_optimization.interfaces.workbench.configuration_watch import ConfigurationWatch, record_configuration
from ml_postgres_optimization.interfaces.workbench.ground import survey
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.target.seen import SettingSeen
from ml_postgres_optimization.telemetry import VirtualClock

MISSED = "SELECT name, old, new, brought_by FROM genesis.configuration_changes ORDER BY at, name"


@pytest.fixture
def tuned(monkeypatch, capsys, tmp_path, own_server):
    """The command line on a server of its own, whose history has begun."""
    clean_environment(monkeypatch, tmp_path / "home")
    cli = CommandLine(capsys, tmp_path / "home", own_server.dsn)
    cli("setup").done()
    return cli


def opened(cli, **chosen):
    return open_session(load_settings({"dsn": cli.dsn, **chosen}), resolve_home(os.environ, None), {}, Silence())


def in_a_trial(cli, trial_id, during=None, *, promote=True, **values):
    """Hold a trial as the controller does, with the observer looking at each step."""
    with opened(cli) as session:
        observer = Observer(session)
        with session.sole_optimizer() as journal:
            guard = survey(session).guard(journal)
            live = session.target.settings(values)
            before = Configuration({name: setting.value for name, setting in live.items()})
            with guard.trial(Change(before, Configuration(values)), trial_id) as trial:
                trial.apply()
                observer.look()
                trial.withdraw()
                if during is not None:
                    during()
                observer.look()
                if promote:
                    trial.confirm()
            observer.look()


def now(cli):
    """A moment after all that was, and before all that comes."""
    time.sleep(0.002)
    ((moment,),) = rows(cli.dsn, "SELECT clock_timestamp()")
    time.sleep(0.002)
    return moment.astimezone(UTC).isoformat(" ")


def shown(cli, name):
    ((value,),) = rows(cli.dsn, f"SHOW {name}")
    return value


def set_by_hand(cli, *statements):
    """Change settings as a colleague does, and wait until all have them."""
    before = rows(cli.dsn, "SELECT pg_conf_load_time()")
    by_hand(cli.dsn, *statements, "SELECT pg_reload_conf()")
    for _ in range(500):
        if rows(cli.dsn, "SELECT pg_conf_load_time()") != before:
            return
    raise AssertionError("the server never reloaded")


def test_a_trial_and_its_rollback_are_periods_and_any_of_them_comes_back(tuned):
    untouched = now(tuned)
    in_a_trial(tuned, "t1", work_mem=8192, random_page_cost=1.1)
    in_a_trial(tuned, "t2", work_mem=5120, promote=False)
    promoted = now(tuned)
    assert tuned("rollback", "--to", "t1", "--json").done().document["undone"][0]["trial"] == "t1"
    rolled_back = now(tuned)
    changes = [
        ("random_page_cost", "4", "1.1", "trial"),
        ("work_mem", "4MB", "8MB", "trial"),
        ("random_page_cost", "1.1", "4", "rollback"),
        ("work_mem", "8MB", "4MB", "rollback"),
    ]
    assert rows(tuned.dsn, MISSED) == changes

    written = written_settings(tuned.dsn)
    plan = tuned("rollback", "--to", promoted, "--dry-run").done().out
    assert "Understood as" in plan and "(UTC+0000)" in plan
    assert """ALTER SYSTEM SET "work_mem" = '8192'""" in plan and "pg_reload_conf" in plan
    assert written_settings(tuned.dsn) == written
    document = tuned("rollback", "--to", promoted, "--json").done().document
    assert document == {"undone": [], "put_back": {"work_mem": 8192, "random_page_cost": 1.1}, "left": []}
    assert (shown(tuned, "work_mem"), shown(tuned, "random_page_cost")) == ("8MB", "1.1")
    assert rows(tuned.dsn, MISSED)[-1] == ("work_mem", "4MB", "8MB", "rollback")
    assert "nothing to put back" in tuned("rollback", "--to", promoted).done().out

    # the change that brought it back is undone by the journal, so nothing of ours is left in the file
    ended = tuned("rollback", "--to", rolled_back).done()
    assert "Undid trial rollback-" in ended.out
    assert written_settings(tuned.dsn) == written
    assert "nothing to put back" in tuned("rollback", "--to", untouched).done().out
    assert tuned("status", "--json").document["trials_in_force"] == []


def test_what_somebody_else_changed_survives_and_is_told(tuned):
    set_by_hand(tuned, "ALTER SYSTEM SET log_line_prefix = 'a ''quoted'' %m '")
    tuned("setup").done()
    before = now(tuned)
    in_a_trial(
        tuned,
        "t1",
        lambda: set_by_hand(tuned, "ALTER SYSTEM SET maintenance_work_mem = '99MB'"),
        work_mem=8192,
        random_page_cost=1.1,
    )
    # nobody of ours looks
    set_by_hand(tuned, "ALTER SYSTEM SET random_page_cost = 2", "ALTER SYSTEM SET log_line_prefix = 'other'")
    looked = [row for row in rows(tuned.dsn, MISSED) if row[0] == "maintenance_work_mem"]
    assert looked == [("maintenance_work_mem", "64MB", "99MB", "somebody else")]
    plan = tuned("rollback", "--to", before, "--dry-run", "--json").done().document
    assert [line.split(";")[0] for line in plan["would"]] == ['ALTER SYSTEM RESET "work_mem"']
    document = tuned("rollback", "--to", before, "--json").done().document
    assert document["undone"] == [{"trial": "t1", "restored": {"work_mem": "nothing"}, "pending_restart": []}]
    left = {each["name"]: (each["then"], each["now"], each["sql"]) for each in document["left"]}
    assert left["random_page_cost"][:2] == ("4", "2")
    assert left["log_line_prefix"][:2] == ("a 'quoted' %m ", "other")
    assert (
        {each["name"] for each in plan["left"]}
        == left.keys()
        == {
            "random_page_cost",
            "log_line_prefix",
            "maintenance_work_mem",
        }
    )
    assert (shown(tuned, "work_mem"), shown(tuned, "random_page_cost")) == ("4MB", "2")
    # the statements that are told put the rest back
    set_by_hand(tuned, *(statement for _, _, statement in left.values()))
    tuned("setup").done()
    assert "nothing to put back" in tuned("rollback", "--to", before).done().out
    assert shown(tuned, "log_line_prefix") == "a 'quoted' %m "
    others = tuned("status", "--json").done().document["changes"]
    assert {change["by"] for change in others} == {"somebody else", "trial", "rollback"}
    shown_changes = tuned("status").done().out
    assert "Last changes of the configuration" in shown_changes
    pasted = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", shown_changes)[0]
    assert "Understood as" in tuned("rollback", "--to", pasted, "--dry-run").done().out


def test_a_setting_that_the_guard_refuses_by_now_holds_up_no_other(tuned, monkeypatch):
    in_a_trial(tuned, "t1", max_wal_size=2048, work_mem=8192)
    promoted = now(tuned)
    tuned("rollback", "--to", "t1").done()
    in_a_trial(tuned, "t2", random_page_cost=1.1)
    with opened(tuned, maximum_recovery_seconds=50.0) as session:
        plan = roll_back(session, to=promoted, dry_run=True).document
        with monkeypatch.context() as patch, pytest.raises(TargetError) as failed:
            patch.setattr(f"{roll_back.__module__}.put_in_force", fail)
            roll_back(session, to=promoted)
        assert failed.value.__notes__[0].startswith("Trial t2 is undone")
        document = roll_back(session, to=promoted).document
    assert document["put_back"] == {"work_mem": 8192}
    for left in (plan["left"], document["left"]):
        assert [each["name"] for each in left] == ["max_wal_size"]
        assert "the guard refuses it" in left[0]["why"]


def fail(*_):
    raise TargetError("The server is away.", "Start it.")


def test_what_another_optimiser_has_on_trial_is_left_to_it(tuned):
    with opened(tuned) as session, session.sole_optimizer() as journal:
        guard = survey(session).guard(journal)
        with guard.trial(Change(Configuration({"work_mem": 4096}), Configuration({"work_mem": 8192})), "t1") as trial:
            trial.apply()
            tuned("setup").done()
            with opened(tuned) as other:
                Observer(other)
        assert rows(tuned.dsn, MISSED) == []


def test_a_run_corrects_what_another_has_written(tuned):
    with opened(tuned) as session:
        session.clock = VirtualClock()
        watch, repository = ConfigurationWatch(session), session.repository()
        watch.look()(repository)
        seen = session.target.configuration_seen()
        candidate = replace(seen, settings=(SettingSeen("work_mem", "8192", "kB", "integer"),))
        repository.record_configuration(session.server, candidate)
        watch.look()
        session.clock.sleep(60.0)
        watch.look()(repository)
    assert [row[1:3] for row in rows(tuned.dsn, MISSED)] == [("4MB", "8MB"), ("8MB", "4MB")]


def test_a_standby_writes_nothing_into_the_history_of_its_primary(tuned, own_server, database):
    tuned("setup", "--repository", database).done()
    (own_server.data_directory / "standby.signal").touch(mode=0o644)
    own_server.restart()
    set_by_hand(tuned, "ALTER SYSTEM SET work_mem = '5MB'")
    tuned("setup", "--repository", database).done()
    for words in (("optimize",), ("rollback", "--to", "1 second ago")):
        tuned(*words, "--repository", database).is_refused(3, "standby")
    assert rows(database, MISSED) == []


def test_a_setting_that_needs_a_restart_is_told_and_left(tuned, own_server):
    before = now(tuned)
    by_hand(tuned.dsn, "ALTER SYSTEM SET max_connections = 77")
    own_server.restart()
    tuned("setup").done()
    ended = tuned("rollback", "--to", before).done()
    assert """\n-- it needs a restart: ALTER SYSTEM SET "max_connections" = '""" in ended.out
    assert shown(tuned, "max_connections") == "77"


def test_a_forged_name_or_value_stays_within_its_comment(tuned):
    before = now(tuned)
    by_hand(
        tuned.dsn,
        "DELETE FROM genesis.configuration_history WHERE name = 'max_connections'",
        """
        INSERT INTO genesis.configuration_history (server, name, value, sys_period, not_before, brought_by)
        SELECT server, name, value, tstzrange(since, until), since, 'somebody else'
        FROM genesis.observed_servers, LATERAL (VALUES
            (E'x\\nDROP a; --', '1', known_since, now()),
            (E'x\\nDROP a; --', '2', now(), NULL),
            ('max_connections', E'3\\nDROP b; --', known_since, NULL)
        ) AS forged (name, value, since, until)
        """,
    )
    ended = tuned("rollback", "--to", before, "--dry-run").done()
    lines = [line for line in ended.out.splitlines() if "DROP" in line]
    assert [line for line in lines if not line.startswith("-- ")] == ["DROP a; --\" = '1';"], "within its quotes"
    assert [line.split(" is ")[0] for line in lines if " a; -- is " in line] == ["-- x?DROP a; --"]
    assert [line for line in lines if " b; --" in line and "ALTER" in line] == [
        "-- it needs a restart: ALTER SYSTEM SET \"max_connections\" = '3?DROP b; --';"
    ]


@pytest.mark.parametrize(
    ("to", "fragments"),
    [
        ("2001-01-01 10:00+02:00", ("2001-01-01 10:00:00 UTC+02:00", "the history begins at", "Name a later moment")),
        ("2999-01-01", ("is to come",)),
        ("90 days ago", ("the history begins at",)),
        ("2026-02-30", ("no moment",)),
        ("2026-11-30 25:00", ("no moment",)),
        ("99999999999999 weeks ago", ("no moment",)),
        ("yesterday", ("No trial yesterday is in force", "or a moment")),
        ("20261130T140000.123456", ("No trial 20261130T140000.123456 is in force",)),
    ],
)
def test_a_moment_of_which_nothing_is_known_is_refused(monkeypatch, capsys, tmp_path, database, to, fragments):
    clean_environment(monkeypatch, tmp_path / "home")
    here = CommandLine(capsys, tmp_path / "home", database)
    here("setup").done()
    for more in ((), ("--dry-run",)):
        ended = here("rollback", "--to", to, *more)
        assert ended.code == 2, ended
        assert all(fragment in ended.err for fragment in fragments), ended


def test_a_history_in_another_database_serves_as_well_and_is_not_needed_for_a_trial(tuned, own_server):
    by_hand(own_server.dsn, "CREATE DATABASE records", "DROP SCHEMA genesis CASCADE")
    repository = make_conninfo(own_server.dsn, dbname="records")
    in_no_repository = ("rollback", "--to", "baseline")
    with opened(tuned) as session, session.sole_optimizer() as journal:
        guard = survey(session).guard(journal)
        before = Configuration({"work_mem": 4096})
        with guard.trial(Change(before, Configuration({"work_mem": 8192})), "t1") as trial:
            trial.confirm()
        assert not record_configuration(session)
    assert "Undid trial t1" in tuned(*in_no_repository).done().out
    tuned("rollback", "--to", "1 hour ago").is_refused(3, "schema genesis is not there", "setup")

    tuned("setup", "--repository", repository).done()
    moment = datetime.now(UTC) + timedelta(milliseconds=1)
    time.sleep(0.002)
    set_by_hand(tuned, "ALTER SYSTEM SET work_mem = '5MB'")
    with opened(tuned, repository=repository) as session:
        left = roll_back(session, to=moment.isoformat()).document["left"]
    assert [(each["name"], each["then"], each["now"]) for each in left] == [("work_mem", "4096", "5120")]
    with psycopg.connect(repository) as connection:
        assert connection.execute("SELECT count(*) FROM genesis.configuration_changes").fetchone() == (1,)
