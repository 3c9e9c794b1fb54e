"""Settings of roles beside others who are at the same role, or have given it what we would not write."""

import threading

import psycopg
import pytest
from psycopg import sql

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.safety.journal import KnobChange
from ml_postgres_optimization.safety.undo import is_ours
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.server import PostgresTarget

HOSTILE = "o'brien\"; DROP ROLE postgres; -- %s {} \\ $1 ü"
SOON_SECONDS = 0.2


@pytest.fixture(params=["application_of_orders", HOSTILE], ids=["plain", "hostile"])
def setting(request, database):
    """A limit of a role in this database."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    done(database, "CREATE ROLE {} LOGIN", request.param)
    yield RoleSetting("lock_timeout", request.param, name)
    done(database, "DROP ROLE {}", request.param)


@pytest.fixture
def target(database):
    with PostgresTarget.open(ConnectionSettings.from_dsn(database)) as opened:
        yield opened


def done(dsn, statement, *names):
    with psycopg.connect(dsn, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def given(dsn, setting, value):
    done(dsn, f"ALTER ROLE {{}} IN DATABASE {{}} SET {value}", setting.role, setting.database)


def stored(dsn, setting):
    query = "SELECT setconfig FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole WHERE rolname = %s"
    with psycopg.connect(dsn) as connection:
        return [line for (lines,) in connection.execute(query, (setting.role,)).fetchall() for line in lines]


def held(dsn, setting, value, seconds=None):
    """Change the role's entry in a transaction, which is committed in a while, or left to the caller."""
    connection = psycopg.connect(dsn)
    names = map(sql.Identifier, (setting.role, setting.database))
    connection.execute(sql.SQL(f"ALTER ROLE {{}} IN DATABASE {{}} SET {value}").format(*names))
    if seconds is None:
        return connection

    def end():
        connection.commit()
        connection.close()

    timer = threading.Timer(seconds, end)
    timer.start()
    return timer


def test_a_limit_is_given_and_taken_back_whatever_the_role_is_called(database, target, setting):
    assert target.settings([setting.key])[setting.key].written_value is None
    assert target.write(setting.key, 2000)
    assert stored(database, setting) == ["lock_timeout=2000"]
    with psycopg.connect(psycopg.conninfo.make_conninfo(database, user=setting.role)) as application:
        assert application.execute("SHOW lock_timeout").fetchone() == ("2s",)
    assert target.settings([setting.key])[setting.key].written_value == "2000"
    assert target.restore(setting.key, None)
    assert stored(database, setting) == []


def test_who_is_at_the_same_role_is_no_trouble_of_ours(database, target, setting):
    """The first entry, made by both at once, is a unique violation; one that was changed, an internal error."""
    for value in ("work_mem = '5MB'", "work_mem = '6MB'"):
        timer = held(database, setting, value, SOON_SECONDS)
        with pytest.raises(ChangeRefused, match="somebody else changes that role"):
            target.write(setting.key, 2000)
        timer.join()
    given(database, setting, "lock_timeout = '2000'")
    timer = held(database, setting, "work_mem = '7MB'", SOON_SECONDS)
    assert target.restore(setting.key, "3s")
    timer.join()
    assert sorted(stored(database, setting)) == ["lock_timeout=3s", "work_mem=7MB"]


def test_what_is_held_for_longer_is_refused_and_can_be_put_back_later(database, target, setting):
    given(database, setting, "lock_timeout = '2000'")
    with held(database, setting, "work_mem = '5MB'") as holder:
        with pytest.raises(ChangeRefused, match="somebody else changes that role"):
            target.restore(setting.key, None)
        holder.rollback()
    assert target.restore(setting.key, None)
    assert stored(database, setting) == []


def test_what_we_cannot_read_is_not_told_and_another_spelling_is_not_ours(database, target, setting):
    given(database, setting, "lock_timeout = '0x7D0'")
    assert target.settings([setting.key]) == {}
    given(database, setting, "lock_timeout = '2s'")
    ours = KnobChange(setting.key, None, 0, 2000)
    assert not is_ours(ours, target.settings([setting.key])[setting.key])
    assert target.write(setting.key, 2000)
    assert is_ours(ours, target.settings([setting.key])[setting.key])


def test_transactions_that_only_read_by_default_are_no_hindrance(database, setting):
    done(database, "ALTER DATABASE {} SET default_transaction_read_only = on", setting.database)
    with PostgresTarget.open(ConnectionSettings.from_dsn(database)) as target:
        assert target.write(setting.key, 2000)
        assert target.restore(setting.key, None)


def test_a_role_that_is_gone_has_no_settings(database, target, setting):
    target.write(setting.key, 2000)
    other = f"{setting.role} renamed"
    done(database, "ALTER ROLE {} RENAME TO {}", setting.role, other)
    assert target.settings([setting.key]) == {}
    with pytest.raises(ChangeRefused, match="does not exist"):
        target.restore(setting.key, None)
    done(database, "ALTER ROLE {} RENAME TO {}", other, setting.role)
    assert target.restore(setting.key, None)
