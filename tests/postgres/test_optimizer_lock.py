"""One optimiser per server, whichever database each is connected to."""

import threading
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from rewriting_proxy import as_a_pooler, rewriting_proxy

from ml_postgres_optimization.errors import AlreadyRunning, ServerUnreachable, TargetError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection
from ml_postgres_optimization.target.postgres.lock import KEY, optimizer_lock


def session_on(dsn):
    return LastingConnection(ConnectionSettings.from_dsn(dsn), "settings")


@contextmanager
def lock(dsn, **options):
    with session_on(dsn) as session, optimizer_lock(session, **{"patience_seconds": 0.0, **options}) as held:
        yield held


def holders(dsn):
    with psycopg.connect(dsn) as connection:
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %(class)s AND objid = %(object)s"
        return [pid for (pid,) in connection.execute(query, KEY).fetchall()]


def test_the_lock_is_held_and_released(database):
    with lock(database) as held:
        assert held.held() and len(holders(database)) == 1
    assert holders(database) == [] and not held.held()
    with lock(database):
        pass


@pytest.mark.parametrize("other", ["test", "postgres", "template1"])
def test_a_second_optimiser_is_told_who_is_at_work_in_whatever_database(database, other):
    second = database if other == "test" else make_conninfo(database, dbname=other)
    with lock(database) as held:
        (pid,) = holders(database)
        with pytest.raises(AlreadyRunning) as refused, lock(second):
            raise AssertionError("two at once")
        assert held.held() and holders(database) == [pid]
    name = ConnectionSettings.from_dsn(database).parameters["dbname"]
    assert f"genesis-pg: settings (process {pid}, role postgres, database {name} since 20" in refused.value.what
    assert f"pg_terminate_backend({pid})" in refused.value.next_step
    assert refused.value.exit_code == 4 and str(refused.value).count("\n") == 1
    with lock(second):
        pass


def test_a_role_that_sees_little_still_sees_that_somebody_is_at_work(database, owner):
    with lock(database):
        (pid,) = holders(database)
        with (
            pytest.raises(AlreadyRunning, match=rf"genesis-pg: settings \(process {pid}, role postgres"),
            lock(owner),
        ):
            raise AssertionError("two at once")
    with lock(owner) as held:
        assert held.held()


def test_an_error_inside_releases_the_lock(database):
    with pytest.raises(ZeroDivisionError), lock(database):
        raise ZeroDivisionError
    assert holders(database) == []


def test_a_lock_whose_session_was_ended_is_no_longer_held(database):
    with lock(database) as held:
        (pid,) = holders(database)
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert not held.held()
        with lock(database):
            assert not held.held(), "somebody else's"


def terminate(dsn, pid):
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_what_hangs_on_the_lock_is_done_in_its_session_or_not_at_all(database):
    with session_on(database) as session, optimizer_lock(session) as held:
        terminate(database, session.run(lambda connection: connection.info.backend_pid, "ask"))
        for _ in range(2):
            with pytest.raises(ServerUnreachable):
                session.run_bound(lambda connection: connection.execute("SELECT 1"), "change a setting")
        assert not held.held()


def test_a_session_that_takes_the_place_of_a_lost_one_takes_the_lock_and_not_the_right(database):
    with session_on(database) as session, optimizer_lock(session) as held:
        terminate(database, session.run(lambda connection: connection.info.backend_pid, "ask"))
        session.run(lambda connection: connection.execute("SELECT 1"), "put something back")
        assert len(holders(database)) == 1
        assert not held.held()
        with pytest.raises(ServerUnreachable, match="the right to change a setting"):
            session.run_bound(lambda connection: connection.execute("SELECT 1"), "change a setting")
    assert holders(database) == []


def test_nothing_is_put_back_where_another_has_the_lock_by_now(database):
    with session_on(database) as session, optimizer_lock(session, patience_seconds=0.0):
        terminate(database, session.run(lambda connection: connection.info.backend_pid, "ask"))
        with lock(database), pytest.raises(AlreadyRunning):
            session.run(lambda connection: connection.execute("SELECT 1"), "put something back")


def test_over_a_restart_of_ours_the_right_stays(own_server):
    with session_on(own_server.dsn) as session, optimizer_lock(session) as held:
        with held.over_a_restart():
            own_server.restart()
        assert held.held()
        terminate(own_server.dsn, session.run(lambda connection: connection.info.backend_pid, "ask"))
        with held.over_a_restart():
            own_server.restart()
        assert not held.held(), "it was lost before"


def test_the_lock_of_a_killed_optimiser_is_waited_for(database):
    """The server needs a moment to notice that a client is gone."""
    stuck = psycopg.connect(database, autocommit=True)
    stuck.execute("SELECT pg_advisory_lock(%(class)s, %(object)s)", KEY)
    release = threading.Timer(0.2, stuck.close)
    release.start()
    with lock(database, patience_seconds=10) as held:
        assert held.held()
    release.join()


def test_of_many_at_once_one_at_most_goes_on(server, database):
    """In two databases, each taking its own lock before it looks for the other's."""
    inside, worst = [], []
    start = threading.Barrier(4)

    def compete(dsn):
        start.wait()
        for _ in range(10):
            try:
                with lock(dsn):
                    inside.append(1)
                    worst.append(len(inside))
                    inside.pop()
            except AlreadyRunning:
                continue

    threads = [threading.Thread(target=compete, args=(dsn,)) for dsn in (server.dsn, database) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst and max(worst) == 1


def test_a_pooler_cannot_hold_a_lock(database):
    with rewriting_proxy(database, as_a_pooler) as port:
        with (
            pytest.raises(TargetError, match="pooler") as refused,
            lock(make_conninfo(database, host="127.0.0.1", port=port)),
        ):
            raise AssertionError("locked in a shared session")
        assert "PostgreSQL itself" in refused.value.next_step
    assert holders(database) == []


def test_a_server_that_stops_takes_the_lock_with_it(own_server):
    with lock(own_server.dsn) as held:
        own_server.stop("immediate")
        assert not held.held()


def test_a_server_that_is_down(own_server):
    dsn = own_server.dsn
    own_server.stop()
    with pytest.raises(ServerUnreachable), lock(dsn):
        raise AssertionError("locked on a server that is down")
