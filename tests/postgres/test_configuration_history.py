"""What was in force when: periods without overlap, whoever changed a setting, and who that was."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from ml_postgres_optimization.errors import SchemaMissing
from ml_postgres_optimization.interfaces.commands.online.returning import setbacks
from ml_postgres_optimization.target.postgres.capabilities import read_system_identifier
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.postgres.repository import (
    JournalEntry,
    Repository,
)
from ml_postgres_optimization.target.postgres.schema import LATEST_VERSION, install_schema, setup_script
from ml_postgres_optimization.target.seen import ConfigurationSeen, SettingSeen

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE, OTHER = "7001", "7002"


@pytest.fixture
def session(owner):
    with connect(ConnectionSettings.from_dsn(owner), statement_timeout_seconds=60) as connection:
        install_schema(connection)
        yield connection


@pytest.fixture
def repository(session):
    return Repository(session)


def at(minutes):
    return NOON + timedelta(minutes=minutes)


def seen(minutes, *, loaded=None, **values):
    settings = tuple(SettingSeen(name, value, "kB", "integer") for name, value in values.items())
    return ConfigurationSeen(at(minutes), at(minutes if loaded is None else loaded), settings)


def record(number, kind, trial, knobs=(), **more):
    entry = {"format": 2, "kind": kind, "trial": trial, "pid": 1, **more}
    if knobs:
        entry["knobs"] = [{"name": n, "old_written": None, "old": old, "new": new} for n, old, new in knobs]
    return JournalEntry(at(number), entry)


def periods(session, server=ONE):
    query = (
        "SELECT name, value, lower(sys_period), upper(sys_period), not_before, brought_by, trial_id "
        "FROM genesis.configuration_history WHERE server = %s ORDER BY name, lower(sys_period)"
    )
    return session.execute(query, [server]).fetchall()


def as_of(session, instant, server=None):
    query = "SELECT name, value FROM genesis.configuration_as_of(%s, %s)"
    return dict(session.execute(query, [instant, server]).fetchall())


def test_a_change_of_somebody_else_lies_between_two_looks(session, repository):
    assert repository.record_configuration(ONE, seen(0, work_mem="4096", temp_buffers="1024")) == 2
    assert repository.record_configuration(ONE, seen(10, work_mem="4096")) == 0
    assert repository.record_configuration(ONE, seen(20, loaded=15, work_mem="8192")) == 1
    assert periods(session) == [
        ("temp_buffers", "1024", at(0), None, at(0), "first seen", None),
        ("work_mem", "4096", at(0), at(15), at(0), "first seen", None),
        ("work_mem", "8192", at(15), None, at(10), "somebody else", None),
    ]
    (change,) = repository.configuration_changes(ONE, last=5)
    assert (change.at, change.name, change.old, change.new) == (at(15), "work_mem", "4MB", "8MB")
    assert repository.known(ONE).observed_at == at(20)


def test_what_is_ours_is_known_by_the_journal_and_to_the_moment(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    trial = [
        record(1, "intent", "t1", [("work_mem", 4096, 8192)]),
        record(2, "applied", "t1"),
        record(3, "confirmed", "t1"),
    ]
    repository.mirror_journal(ONE, trial)
    repository.record_configuration(ONE, seen(5, work_mem="8192"))
    repository.mirror_journal(ONE, [record(7, "reopened", "t1"), record(8, "reverted", "t1")])
    repository.record_configuration(ONE, seen(9, work_mem="4096"))
    assert periods(session)[1:] == [
        ("work_mem", "8192", at(3), at(8), at(3), "trial", "t1"),
        ("work_mem", "4096", at(8), None, at(8), "rollback", "t1"),
    ]
    # the journal has told its part: whoever sets the same value afterwards is somebody else
    repository.record_configuration(ONE, seen(12, work_mem="8192"))
    assert periods(session)[-1][-2:] == ("somebody else", None)


def test_a_withdrawn_trial_leaves_no_period(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    kinds = ("applied", "withdrawn", "applied", "reverted")
    trial = [record(1, "intent", "t1", [("work_mem", 4096, 8192)])]
    repository.mirror_journal(ONE, [*trial, *(record(2 + n, kind, "t1") for n, kind in enumerate(kinds))])
    assert repository.record_configuration(ONE, seen(9, work_mem="4096")) == 0
    assert len(periods(session)) == 1


def test_what_a_killed_run_left_and_who_stands_by_put_back(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    repository.mirror_journal(
        ONE, [record(1, "intent", "t1", [("work_mem", 4096, 8192)]), record(2, "applied", "t1")]
    )
    repository.record_configuration(ONE, seen(3, work_mem="8192"))
    repository.record_configuration(ONE, seen(5, loaded=4, work_mem="4096"))
    assert [row[-2:] for row in periods(session)[1:]] == [("trial", "t1"), ("undo", "t1")]


def test_what_was_only_on_trial_is_nothing_to_go_back_to(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    repository.mirror_journal(
        ONE, [record(1, "intent", "t9", [("work_mem", 4096, 65536)]), record(2, "applied", "t9")]
    )
    repository.record_configuration(ONE, seen(3, work_mem="65536"))
    # while it is in force, it has to be known as ours
    lasting = [(each.value, each.brought_by) for each in repository.periods(ONE, at(4))]
    assert lasting == [("4096", "first seen"), ("65536", "trial")]
    repository.record_configuration(ONE, seen(5, work_mem="4096"))
    assert [row[1] for row in periods(session)] == ["4096", "65536", "4096"]
    for moment in (1, 4):
        told = repository.periods(ONE, at(moment))
        assert [(each.value, each.brought_by) for each in told] == [("4096", "first seen"), ("4096", "undo")]
        assert setbacks(told, at(moment), {"work_mem": "4096"}) == []
    assert [each.brought_by for each in repository.periods(ONE, at(6))] == ["undo"]


def test_an_intent_that_was_mirrored_twice_makes_one_period(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    intent = record(1, "intent", "t1", [("work_mem", 4096, 8192)])
    again = JournalEntry(intent.at, {**intent.entry, "format": 1})
    repository.mirror_journal(ONE, [intent, record(2, "applied", "t1"), again])
    repository.record_configuration(ONE, seen(3, work_mem="8192"))
    assert repository.record_configuration(ONE, seen(5, work_mem="4096")) == 1
    assert [row[-2:] for row in periods(session)[1:]] == [("trial", "t1"), ("undo", "t1")]


def test_the_journal_does_not_go_back_where_two_look_at_once(session, repository, owner):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    with connect(ConnectionSettings.from_dsn(owner)) as other, ThreadPoolExecutor(1) as pool:
        with session.transaction():
            repository.record_configuration(ONE, seen(1, work_mem="4096"))
            waiting = pool.submit(Repository(other).record_configuration, ONE, seen(2, work_mem="4096"))
            wait_until_locked_out(session, other)
            repository.mirror_journal(ONE, [record(3, "intent", "t1", [("work_mem", 4096, 8192)])])
            repository.record_configuration(ONE, seen(4, work_mem="4096"))
        waiting.result()
    query = "SELECT journal_number = (SELECT max(number) FROM genesis.journal) FROM genesis.observed_servers"
    assert session.execute(query).fetchone() == (True,)


def wait_until_locked_out(session, other):
    for _ in range(1000):
        if session.execute("SELECT pg_blocking_pids(%s) <> '{}'", [other.info.backend_pid]).fetchone()[0]:
            return
    raise AssertionError("nobody waits")


def test_moments_are_in_utc_whatever_the_session_says(session, repository):
    session.execute("SET TIME ZONE 'Asia/Tokyo'")
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    repository.record_configuration(ONE, seen(1, work_mem="8192"))
    (change,) = repository.configuration_changes(ONE, last=5)
    known, period = repository.known(ONE), repository.periods(ONE, at(2))[0]
    moments = (change.at, change.not_before, known.known_since, known.observed_at, period.since, period.not_before)
    assert {moment.tzinfo for moment in moments} == {UTC}


def test_a_journal_that_comes_late_corrects_who_it_was(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    repository.record_configuration(ONE, seen(4, loaded=3, work_mem="8192"))
    assert periods(session)[-1][-2] == "somebody else"
    repository.mirror_journal(
        ONE, [record(1, "intent", "t1", [("work_mem", 4096, 8192)]), record(3, "confirmed", "t1")]
    )
    repository.record_configuration(ONE, seen(5, work_mem="8192"))
    assert periods(session)[-1][-2:] == ("trial", "t1")


def test_what_somebody_set_during_a_trial_is_his(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    intent = record(1, "intent", "t1", [("work_mem", 4096, 8192)])
    repository.mirror_journal(ONE, [intent, record(2, "reverted", "t1", foreign={"work_mem": "6MB"})])
    repository.record_configuration(ONE, seen(3, work_mem="6144"))
    assert periods(session)[-1][-2] == "somebody else"


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [
        ("on", True, True),
        ("off", True, False),
        ("1.1", 1.1, True),
        ("0.123457", 0.1234567, True),
        ("1", 1.0, True),
        ("1e-05", 0.00001, True),
        ("LZ4", "lz4", True),
        ("pglz", 4, False),
        ("", 4, False),
    ],
)
def test_the_journals_values_are_recognised(session, text, value, same):
    row = session.execute("SELECT genesis.is_same_setting(%s, %s)", [text, Jsonb(value)]).fetchone()
    assert row == (same,)


def test_values_are_written_as_the_server_writes_them(session):
    """Every setting of this server, and a few values that none has."""
    query = (
        "SELECT name, genesis.setting_text(setting, unit), current_setting(name) FROM pg_settings "
        "WHERE unit IS NOT NULL AND genesis.setting_text(setting, unit) <> current_setting(name)"
    )
    assert session.execute(query).fetchall() == []
    given = [("16384", "8kB"), ("0.5", "ms"), ("-1", "kB"), ("90", "s"), ("x'\"", None), ("0", "kB")]
    texts = [session.execute("SELECT genesis.setting_text(%s, %s)", pair).fetchone()[0] for pair in given]
    assert texts == ["128MB", "500us", "-1", "90s", "x'\"", "0"]


def test_periods_cannot_overlap(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    repository.record_configuration(OTHER, seen(0, work_mem="4096"))
    insert = (
        "INSERT INTO genesis.configuration_history (server, name, value, sys_period, not_before, brought_by) "
        "VALUES (%s, %s, '1', tstzrange(%s, %s), '-infinity', 'somebody else')"
    )
    session.execute(insert, [ONE, "work_mem", at(-2), at(0)])
    session.execute(insert, [ONE, "work_mem2", at(1), None])
    for begin, end in ((at(-1), at(5)), (at(3), at(4)), (at(-5), at(-1))):
        with pytest.raises(psycopg.errors.ExclusionViolation):
            session.execute(insert, [ONE, "work_mem", begin, end])
    with pytest.raises(psycopg.errors.CheckViolation):
        session.execute(insert, [ONE, "work_mem", at(-9), at(-9)])


def test_two_servers_share_a_repository(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="4096"))
    repository.record_configuration(OTHER, seen(1, work_mem="1024"))
    assert as_of(session, at(2), ONE) == {"work_mem": "4096"}
    assert as_of(session, at(2), OTHER) == {"work_mem": "1024"}
    assert as_of(session, at(0.5), OTHER) == {}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="configurations of 2 servers"):
        as_of(session, at(2))


def test_any_moment_is_as_a_model_has_it(session, repository):
    """Looks at hostile values, asked at as many moments."""
    draw = random.Random(7)
    names = ("a", "b", 'weird "name"', "ünï")
    values = ("1", "2", "'; DROP TABLE x; --", 'a"b', "ünïcödé ☃", "long " * 2000, "")
    model, now, told = [], 0.0, {}
    for _ in range(300):
        now += draw.uniform(0.01, 5)
        told = {**told, **{name: draw.choice(values) for name in draw.sample(names, draw.randint(1, 4))}}
        repository.record_configuration(ONE, seen(now, **told))
        model.append((at(now), dict(told)))
    for _ in range(300):
        instant = at(draw.uniform(-5, now + 5))
        expected = next((values for moment, values in reversed(model) if moment <= instant), {})
        assert as_of(session, instant, ONE) == expected
    gaps = session.execute(
        "SELECT count(*) FROM (SELECT upper(sys_period) AS ended, lead(lower(sys_period)) OVER (PARTITION BY "
        "server, name ORDER BY lower(sys_period)) AS next FROM genesis.configuration_history) AS each "
        "WHERE ended IS DISTINCT FROM next"
    ).fetchone()
    assert gaps == (0,)


def test_a_clock_that_is_set_back_breaks_nothing(session, repository):
    for minutes, value in ((0, "1"), (10, "2"), (3, "3"), (4, "4"), (11, "5")):
        assert repository.record_configuration(ONE, seen(minutes, work_mem=value)) == 1
    assert [row[1] for row in periods(session)] == ["1", "2", "3", "4", "5"]
    assert as_of(session, at(11), ONE) == {"work_mem": "5"}


def test_a_clock_that_was_far_ahead_freezes_nothing(session, repository):
    day = 24 * 60
    for minutes, value in ((0, "1"), (day, "2"), (day + 1, "3")):
        repository.record_configuration(ONE, seen(minutes, work_mem=value, temp_buffers="1"))
    assert repository.record_configuration(ONE, seen(10, work_mem="3", temp_buffers="1")) == 0
    assert as_of(session, at(11), ONE) == {"work_mem": "3", "temp_buffers": "1"}, "what is in force holds now"
    assert as_of(session, at(9), ONE) == {"work_mem": "1", "temp_buffers": "1"}
    assert repository.record_configuration(ONE, seen(20, work_mem="4", temp_buffers="1")) == 1
    assert as_of(session, at(19), ONE)["work_mem"] == "3"
    assert as_of(session, at(21), ONE)["work_mem"] == "4"


def test_what_was_first_seen_by_a_clock_far_ahead_is_known_now(session, repository):
    repository.record_configuration(ONE, seen(24 * 60, work_mem="1"))
    repository.record_configuration(ONE, seen(0, work_mem="2"))
    assert as_of(session, at(1), ONE) == {"work_mem": "2"}


def test_retention_forgets_what_ended_long_ago_and_says_so(session, repository):
    repository.record_configuration(ONE, seen(0, work_mem="1", temp_buffers="1"))
    repository.record_configuration(ONE, seen(10, work_mem="2"))
    session.execute("UPDATE genesis.settings SET history_days = 1")
    assert session.execute("SELECT genesis.maintain()").fetchone() == (True,)
    assert [row[1] for row in periods(session)] == ["1", "2"]
    assert as_of(session, at(5), ONE) == {}, "what is not whole is not told"
    assert as_of(session, datetime.now(UTC), ONE) == {"work_mem": "2", "temp_buffers": "1"}


def test_an_upgrade_keeps_what_was_there(session, owner, database):
    with psycopg.connect(database, autocommit=True) as superuser:
        superuser.execute("DROP SCHEMA genesis CASCADE")
    script = setup_script().replace("COMMIT;", "")
    until, rest = script.index("-- What was in force when, setting"), script.index("-- Partitions of a day")
    session.execute(script[:until] + "COMMIT;", prepare=False)
    entry = record(1, "intent", "t1", [("work_mem", 4096, 8192)])
    assert session.execute("SELECT max(version) FROM genesis.schema_version").fetchone() == (6,)
    session.execute(
        read_query("repository/mirror_journal"), {"server": ONE, "ats": [entry.at], "entries": ['{"kind": "intent"}']}
    )
    assert rest > until
    report = install_schema(session)
    assert (report.version_before, report.version_after) == (6, LATEST_VERSION)
    assert len(Repository(session).journal(ONE)) == 1
    assert Repository(session).known(ONE) is None


class TestByTheDatabaseAlone:
    """genesis.record_window() on a server of its own, with nobody of ours running."""

    @pytest.fixture
    def admin(self, own_server):
        with psycopg.connect(own_server.dsn, autocommit=True) as connection:
            install_schema(connection)
            yield connection

    def look(self, dsn):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SELECT genesis.record_window()")

    def set_by_hand(self, admin, *statements):
        for statement in statements:
            admin.execute(statement)
        admin.execute("SELECT pg_reload_conf()")

    def test_a_change_by_hand_is_seen(self, admin, own_server):
        self.look(own_server.dsn)
        (loaded,) = admin.execute("SELECT pg_conf_load_time()").fetchone()
        hostile = "a \"quoted\" 'name'; ünï"
        self.set_by_hand(
            admin,
            "ALTER SYSTEM SET work_mem = '7MB'",
            sql.SQL("ALTER SYSTEM SET log_line_prefix = {}").format(sql.Literal(hostile)),
            "ALTER SYSTEM SET archive_command = 'cp --password=secret'",
            "ALTER SYSTEM SET primary_conninfo = 'password=secret'",
        )
        wait_until_loaded(admin, loaded)
        self.look(own_server.dsn)
        changes = admin.execute(
            'SELECT name, old, new, brought_by FROM genesis.configuration_changes ORDER BY name COLLATE "C"'
        ).fetchall()
        (before,) = (old for name, old, _, _ in changes if name == "log_line_prefix")
        assert changes == [
            ("log_line_prefix", before, hostile, "somebody else"),
            ("work_mem", "4MB", "7MB", "somebody else"),
        ]
        assert admin.execute(
            "SELECT count(*) FROM genesis.configuration_history WHERE value ~ 'secret'"
        ).fetchone() == (0,)
        (row,) = admin.execute("SELECT setting FROM genesis.configuration_as_of() WHERE name = 'work_mem'").fetchall()
        assert row == ("7MB",)

    def test_what_holds_for_one_role_only_is_not_taken_for_the_servers(self, admin, own_server):
        self.look(own_server.dsn)
        before = admin.execute("SELECT count(*) FROM genesis.configuration_history").fetchone()
        admin.execute("ALTER ROLE CURRENT_USER SET work_mem = '9MB'")
        self.look(own_server.dsn)
        options = "-c temp_buffers=2MB -c lock_timeout=7s -c statement_timeout=77s -c search_path=app"
        with psycopg.connect(own_server.dsn, autocommit=True, options=options) as connection:
            connection.execute("SET maintenance_work_mem = '99MB'")
            connection.execute("SET statement_timeout = '78s'")
            connection.execute("SELECT genesis.record_window()")
        self.look(f"{own_server.dsn} options='{options}'")
        assert admin.execute("SELECT count(*) FROM genesis.configuration_history").fetchone() == before

    def test_an_optimiser_at_work_is_left_to_look_by_itself(self, admin, own_server):
        with psycopg.connect(own_server.dsn, autocommit=True) as optimiser:
            optimiser.execute(read_query("lock/acquire"), {"class": 0x67656E65, "object": 0x6F707469})
            self.look(own_server.dsn)
            assert admin.execute("SELECT count(*) FROM genesis.configuration_history").fetchone() == (0,)
        assert admin.execute("SELECT genesis.own_server()").fetchone() == (read_system_identifier(admin),)

    def test_the_server_sees_what_we_see(self, admin, own_server):
        admin.execute("SET statement_timeout = '78s'")
        inside = admin.execute("SELECT name, value, unit FROM genesis.settings_in_force()").fetchall()
        from_outside = {row[:3] for row in admin.execute(read_query("settings/in_force"))}
        assert set(inside) < from_outside
        assert "search_path" in {name for name, *_ in from_outside - set(inside)}
        assert ("statement_timeout", "0", "ms") in from_outside - set(inside)
        assert len(inside) > 200
        assert admin.execute("SHOW statement_timeout").fetchone() == ("78s",)


def wait_until_loaded(connection, before):
    for _ in range(500):
        with psycopg.connect(connection.info.dsn) as fresh:
            if fresh.execute("SELECT pg_conf_load_time()").fetchone()[0] > before:
                return
    raise AssertionError("the server never reloaded")


def test_without_the_schema_it_is_said(owner):
    with connect(ConnectionSettings.from_dsn(owner)) as connection, pytest.raises(SchemaMissing):
        Repository(connection).known(ONE)
