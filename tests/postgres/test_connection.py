"""Sessions on a real server: limits, hostile surroundings, and every way to be kept out."""

import asyncio
import os
import signal
import traceback
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psycopg
import pytest
from psycopg import sql
from rewriting_proxy import as_a_pooler, as_version_13, rewriting_proxy

from ml_postgres_optimization.errors import (
    AuthenticationFailed,
    PrivilegeMissing,
    ReadOnlyServer,
    ServerUnreachable,
    TargetError,
    UnsupportedVersion,
)
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.postgres.connection import (
    ConnectionSettings,
    LastingConnection,
    connect,
    is_pooled,
    translated,
)

PASSWORD = "p@ss w%rd/'\\ ünï"
HOSTILE = "we\"ird; -- '%s' {x} ünï"


@pytest.fixture(scope="module")
def guarded(binaries, module_folder, session_folder):
    """A server that asks for a password over TCP."""
    with EmbeddedServer.start(
        module_folder,
        binaries=binaries,
        tcp_port=0,
        password=PASSWORD,
        system_state=session_folder / "system",
    ) as server:
        yield server


@pytest.fixture
def by_tcp(guarded):
    settings = ConnectionSettings.from_dsn(guarded.dsn)
    return settings.replaced(host="127.0.0.1", port=guarded.tcp_port, password=PASSWORD)


def show(connection, *names):
    return [connection.execute("SELECT current_setting(%s)", [name]).fetchone()[0] for name in names]


def two_lines(error):
    assert str(error).count("\n") == 1
    return True


# --- a session of ours


def test_a_session_is_named_and_limited(database):
    settings = ConnectionSettings.from_dsn(database)
    with connect(
        settings, purpose="statistics", statement_timeout_seconds=2.5, lock_timeout_seconds=0.25
    ) as connection:
        assert show(connection, "application_name", "statement_timeout", "lock_timeout") == [
            "genesis-pg: statistics",
            "2500ms",
            "250ms",
        ]
        assert show(connection, "idle_session_timeout", "search_path") == ["0", "pg_catalog, pg_temp"]
        assert connection.autocommit
    with connect(settings, autocommit=False) as connection:
        assert show(connection, "application_name", "lc_messages") == ["genesis-pg", "C"]
        assert not connection.autocommit


def test_a_long_purpose_is_cut_to_what_a_name_may_have(database):
    with connect(ConnectionSettings.from_dsn(database), purpose="x" * 100) as connection:
        (name,) = show(connection, "application_name")
        assert name.startswith("genesis-pg: xxx") and len(name) == 63


def test_the_user_s_own_transport_settings_win(database):
    settings = ConnectionSettings.from_dsn(database).replaced(connect_timeout=7, application_name="mine")
    with connect(settings) as connection:
        assert connection.info.get_parameters()["connect_timeout"] == "7"
        assert show(connection, "application_name") == ["genesis-pg"]


def test_what_a_role_prefers_does_not_reach_our_session(database, owner):
    role = ConnectionSettings.from_dsn(owner).parameters["user"]
    with psycopg.connect(database, autocommit=True) as admin:
        for setting in ("DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Tokyo'"):
            admin.execute(f'ALTER ROLE "{role}" SET {setting}')
        admin.execute(f"ALTER ROLE \"{role}\" SET default_transaction_isolation = 'serializable'")
        admin.execute(f'ALTER ROLE "{role}" SET statement_timeout = 1000')
        admin.execute(f'ALTER ROLE "{role}" SET standard_conforming_strings = off')
    with connect(ConnectionSettings.from_dsn(owner)) as connection:
        moment, span = connection.execute(
            "SELECT '2026-03-01 00:00+00'::timestamptz, '26 hours'::interval"
        ).fetchone()
        assert (moment.isoformat(), span.total_seconds()) == ("2026-03-01T00:00:00+00:00", 26 * 3600)
        assert show(connection, "transaction_isolation", "statement_timeout") == ["read committed", "30s"]


def test_a_schema_of_the_database_cannot_shadow_the_server_s_functions(database):
    """What a database's owner could lay out for a superuser that connects (CVE-2018-1058)."""
    with psycopg.connect(database, autocommit=True) as trap:
        trap.execute("CREATE SCHEMA trap")
        for signature in ("set_config(text, text, boolean) RETURNS text", "pg_backend_pid() RETURNS int"):
            trap.execute(f"CREATE FUNCTION trap.{signature} LANGUAGE plpgsql AS 'BEGIN RETURN 1/0; END'")
        trap.execute("CREATE FUNCTION trap.same(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT 1/0 = 1'")
        trap.execute("CREATE OPERATOR trap.= (LEFTARG = int, RIGHTARG = int, FUNCTION = trap.same)")
        trap.execute(f'ALTER DATABASE "{trap.info.dbname}" SET search_path = trap, pg_catalog')
    with psycopg.connect(database) as victim, pytest.raises(psycopg.Error, match="division by zero"):
        victim.execute("SELECT 1 = 1")
    with connect(ConnectionSettings.from_dsn(database)) as connection:
        assert not is_pooled(connection)
        assert connection.execute("SELECT 1 = 1").fetchone() == (True,)


def test_names_may_be_anything_that_postgresql_accepts(server, database):
    """In the database's and the role's name, for psycopg and for asyncpg, and in messages."""
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(HOSTILE)))
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(HOSTILE)))
    settings = ConnectionSettings.from_dsn(server.dsn).replaced(dbname=HOSTILE, user=HOSTILE)
    try:
        with connect(settings) as connection:
            assert connection.execute("SELECT current_database()::text, current_user::text").fetchone() == (
                HOSTILE,
                HOSTILE,
            )
            assert settings.pinned(connection) == settings
        assert asyncio.run(asked_by_asyncpg(settings)) == (HOSTILE, HOSTILE)
        with pytest.raises(TargetError, match="does not exist") as absent:
            connect(settings.replaced(dbname=HOSTILE + "\n\x1b[2J"))
        assert two_lines(absent.value) and "\x1b" not in str(absent.value)
    finally:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(HOSTILE)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(HOSTILE)))


async def asked_by_asyncpg(settings):
    connection = await asyncpg.connect(settings.dsn_for_driver())
    try:
        return tuple(await connection.fetchrow("SELECT current_database()::text, current_user::text"))
    finally:
        await connection.close()


def test_text_is_text_in_a_database_without_an_encoding(server):
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE old_bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with connect(ConnectionSettings.from_dsn(server.dsn).replaced(dbname="old_bytes")) as connection:
            assert connection.execute("SELECT current_setting('server_encoding')").fetchone() == ("SQL_ASCII",)
    finally:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("DROP DATABASE old_bytes WITH (FORCE)")


def test_of_several_hosts_the_one_that_was_reached_is_kept_to(by_tcp, guarded):
    several = by_tcp.replaced(host="127.0.0.1,127.0.0.1", port=f"1,{guarded.tcp_port}")
    with connect(several) as connection:
        pinned = several.pinned(connection)
    assert (pinned.parameters["host"], pinned.parameters["port"]) == ("127.0.0.1", str(guarded.tcp_port))
    with connect(pinned):
        pass


# --- behind a pooler


def test_a_pooler_is_told_from_a_server(database):
    settings = ConnectionSettings.from_dsn(database)
    for rewrite, pooled in ((as_a_pooler, True), (lambda data: data, False)):
        with rewriting_proxy(database, rewrite) as port:
            direct = settings.replaced(host="127.0.0.1", port=port)
            with connect(direct) as connection:
                assert is_pooled(connection) is pooled


def test_the_shared_session_of_a_pooler_is_left_as_it_is(database):
    with rewriting_proxy(database, as_a_pooler) as port:
        settings = ConnectionSettings.from_dsn(database).replaced(host="127.0.0.1", port=port)
        with connect(settings, statement_timeout_seconds=3) as connection:
            assert show(connection, "statement_timeout", "lock_timeout") == ["0", "0"]
            assert connection.prepare_threshold is None


# --- kept out


def test_the_right_password_lets_in(by_tcp):
    with connect(by_tcp) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert asyncio.run(asked_by_asyncpg(by_tcp)) == ("postgres", "postgres")


@pytest.mark.parametrize(
    "change", [{"password": PASSWORD + "!"}, {"password": None}, {"user": "nobody"}], ids=["wrong", "none", "role"]
)
def test_a_refused_password_is_explained_and_never_shown(by_tcp, change):
    with pytest.raises(AuthenticationFailed) as refused:
        connect(by_tcp.replaced(**change))
    assert refused.value.exit_code == 3 and two_lines(refused.value)
    assert "PGPASSWORD" in refused.value.next_step and by_tcp.replaced(**change).display in refused.value.what
    trace = "".join(traceback.format_exception(refused.value))
    for form in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe="")):
        assert form not in trace
    assert refused.value.__cause__ is None and refused.value.__context__ is None, (
        "the driver's error has the password"
    )


def test_the_way_to_give_a_password_follows_the_way_the_server_was_named(by_tcp):
    with pytest.raises(AuthenticationFailed) as refused:
        connect(ConnectionSettings.of({**by_tcp.parameters, "password": "x"}, "POSTGRES_*"))
    assert "POSTGRES_PASSWORD" in refused.value.next_step


def test_a_role_that_may_not_log_in(database, owner):
    role = ConnectionSettings.from_dsn(owner).parameters["user"]
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f'ALTER ROLE "{role}" NOLOGIN')
    with pytest.raises(AuthenticationFailed, match="not permitted to log in"):
        connect(ConnectionSettings.from_dsn(owner))


def test_a_role_that_may_not_connect_to_the_database(server, database, owner):
    settings = ConnectionSettings.from_dsn(owner)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{admin.info.dbname}" OWNER TO postgres')
        admin.execute(f'REVOKE CONNECT ON DATABASE "{admin.info.dbname}" FROM PUBLIC')
        with pytest.raises(PrivilegeMissing, match="CONNECT"):
            connect(settings)


def test_a_database_that_is_not_there(server):
    with pytest.raises(TargetError, match='database "it\'s not" does not exist') as absent:
        connect(ConnectionSettings.from_dsn(server.dsn).replaced(dbname="it's not"))
    assert "createdb -h " in absent.value.next_step and absent.value.next_step.endswith("""'it'"'"'s not'""")


def test_a_server_that_is_too_old(database):
    with (
        rewriting_proxy(database, as_version_13) as port,
        pytest.raises(UnsupportedVersion, match=r"PostgreSQL 13.*oldest supported is 14") as old,
    ):
        connect(ConnectionSettings.from_dsn(database).replaced(host="127.0.0.1", port=port))
    assert old.value.exit_code == 3 and two_lines(old.value)


def test_a_server_without_a_free_connection(own_server):
    own_server.restart({"max_connections": "4", "superuser_reserved_connections": "0", "max_wal_senders": "0"})
    settings = ConnectionSettings.from_dsn(own_server.dsn)
    taken = []
    with pytest.raises(ServerUnreachable, match="no free connection: sorry, too many clients already"):
        while len(taken) < 10:
            taken.append(connect(settings))
    assert len(taken) == 4
    for connection in taken:
        connection.close()


def test_a_server_that_shuts_down_or_is_down(own_server):
    settings = ConnectionSettings.from_dsn(own_server.dsn)
    with connect(settings) as session:
        postmaster = int((own_server.data_directory / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGTERM)  # waits for our session, and lets nobody in
        session.execute("SELECT pg_sleep(0.1)")
        with pytest.raises(ServerUnreachable, match="the database system is shutting down"):
            connect(settings)
    own_server.stop()
    with pytest.raises(ServerUnreachable, match="No connection to") as down:
        connect(settings)
    assert "pg_isready" in down.value.next_step and two_lines(down.value)


def test_a_server_that_does_not_answer(database):
    with rewriting_proxy(database, lambda data: b"") as port:
        settings = ConnectionSettings.from_dsn(database).replaced(host="127.0.0.1", port=port, connect_timeout=2)
        with pytest.raises(ServerUnreachable, match="timeout"):
            connect(settings)


# --- in the middle


def test_a_server_that_stops_in_the_middle(own_server):
    settings = ConnectionSettings.from_dsn(own_server.dsn)
    connection = connect(settings)
    own_server.stop("immediate")
    for _ in range(2):  # the first is told by the server or the socket, the second by the driver
        with pytest.raises(ServerUnreachable, match="was lost") as lost, translated(settings):
            connection.execute("SELECT 1")
        assert two_lines(lost.value)


def test_a_session_that_an_administrator_ends(database):
    settings = ConnectionSettings.from_dsn(database)
    connection = connect(settings)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(ServerUnreachable, match="was lost: terminating connection"), translated(settings):
        connection.execute("SELECT 1")


def test_a_lasting_connection_finds_a_restarted_server_again_once(own_server):
    settings = ConnectionSettings.from_dsn(own_server.dsn)

    def backend(connection):
        return connection.execute("SELECT pg_backend_pid()").fetchone()[0]

    with LastingConnection(settings, "test") as lasting:
        first = lasting.run(backend, "ask")
        assert lasting.run(backend, "ask") == first
        own_server.restart()
        assert lasting.run(backend, "ask") != first
        own_server.stop()
        for _ in range(2):
            with pytest.raises(ServerUnreachable):
                lasting.run(backend, "ask")


def test_a_lasting_connection_runs_nothing_on_a_server_that_is_not_accepted(database):
    def refuse(connection):
        raise ServerUnreachable("Another server.", "Start again.")

    ran = []
    with (
        LastingConnection(ConnectionSettings.from_dsn(database), "test", refuse) as lasting,
        pytest.raises(ServerUnreachable, match="Another server"),
    ):
        lasting.run(ran.append, "ask")
    assert not ran


def test_a_missing_privilege_says_what_was_tried(owner):
    settings = ConnectionSettings.from_dsn(owner)
    with (
        connect(settings) as connection,
        pytest.raises(PrivilegeMissing, match="may not read pg_file_settings: permission denied"),
        translated(settings, "read pg_file_settings"),
    ):
        connection.execute("TABLE pg_file_settings")


def test_a_read_only_role(database, owner):
    settings = ConnectionSettings.from_dsn(owner)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f'ALTER ROLE "{settings.parameters["user"]}" SET default_transaction_read_only = on')
    with (
        connect(settings) as connection,
        pytest.raises(ReadOnlyServer, match="cannot make a table: cannot execute CREATE TABLE"),
        translated(settings, "make a table"),
    ):
        connection.execute("CREATE TABLE public.t ()")


def test_a_statement_that_takes_too_long(database):
    settings = ConnectionSettings.from_dsn(database)
    with (
        connect(settings, statement_timeout_seconds=0.05) as connection,
        pytest.raises(TargetError, match=r"ended a statement of ours \(to wait\): .*statement timeout"),
        translated(settings, "wait"),
    ):
        connection.execute("SELECT pg_sleep(10)")


def test_a_lock_that_is_not_to_be_had(database):
    settings = ConnectionSettings.from_dsn(database)
    with connect(settings) as other, connect(settings, lock_timeout_seconds=0.05) as connection:
        other.execute("CREATE TABLE public.wanted ()")
        with (
            other.transaction(),
            pytest.raises(TargetError, match="holds a lock that we need to read a table"),
            translated(settings, "read a table"),
        ):
            other.execute("LOCK TABLE public.wanted")
            connection.execute("TABLE public.wanted")


def test_an_error_that_is_the_caller_s_goes_through(database):
    settings = ConnectionSettings.from_dsn(database)
    with connect(settings) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable), translated(settings):
            connection.execute("TABLE public.nosuch")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_service_file_and_a_password_file_are_libpq_s_business(guarded, tmp_path: Path, monkeypatch):
    (tmp_path / "services").write_text(
        f"[main]\nhost=127.0.0.1\nport={guarded.tcp_port}\nuser=postgres\ndbname=postgres\n"
    )
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "pgpass").write_text(f"127.0.0.1:{guarded.tcp_port}:*:postgres:{escaped}\n", encoding="utf-8")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    with connect(ConnectionSettings.from_dsn("service=main")) as connection:
        assert connection.info.port == guarded.tcp_port
