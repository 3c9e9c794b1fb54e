"""Which server is meant, and that no password is ever shown."""

import os
import pickle
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.errors import (
    AuthenticationFailed,
    PrivilegeMissing,
    ReadOnlyServer,
    ServerUnreachable,
    TargetError,
    UsageError,
)
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, resolve_connection
from ml_postgres_optimization.target.postgres.connection.failures import connect_failure

SECRET = "p@ss w%rd/'\\"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@pytest.fixture(autouse=True)
def _no_server_in_the_environment(monkeypatch):
    for variable in [name for name in os.environ if name.startswith(("PG", "POSTGRES_"))]:
        monkeypatch.delenv(variable)


def resolved(dsn=None, **environ) -> dict[str, str]:
    settings = resolve_connection(dsn, environ)
    assert settings is not None
    return settings.parameters


def test_nothing_given_means_no_server():
    assert resolve_connection(None, {}) is None
    assert resolve_connection(None, {"PGSSLMODE": "require", "PGAPPNAME": "x", "HOME": "/", "PGHOST": ""}) is None
    assert resolve_connection(None, {"POSTGRES_DB": "", "POSTGRES_PORT": ""}) is None


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://ann@db:5433/shop", "postgres://ann@db:5433/shop", "host=db port=5433 user=ann dbname=shop"],
)
def test_a_dsn_is_a_uri_or_keywords(dsn):
    assert resolved(dsn) == {"host": "db", "port": "5433", "user": "ann", "dbname": "shop"}


def test_a_dsn_wins_and_takes_nothing_from_the_variables_of_the_specification():
    environ = {"POSTGRES_HOST": "other", "POSTGRES_PASSWORD": SECRET, "POSTGRES_DB": "other"}
    assert resolved("host=db", **environ) == {"host": "db"}


def test_the_variables_of_the_specification_win_over_those_of_libpq():
    environ = {
        **{"POSTGRES_DB": "shop", "POSTGRES_USER": "ann", "POSTGRES_PASSWORD": SECRET},
        **{"POSTGRES_HOST": "db", "POSTGRES_PORT": "5433"},
        **{"PGHOST": "other", "PGDATABASE": "other", "PGSSLMODE": "require"},
    }
    assert resolved(**environ) == {
        **{"dbname": "shop", "user": "ann", "password": SECRET, "host": "db", "port": "5433"},
        "sslmode": "require",
    }


def test_a_part_of_them_is_completed_by_those_of_libpq():
    assert resolved(POSTGRES_DB="shop", PGHOST="db", PGPORT="5433") == {
        "dbname": "shop",
        "host": "db",
        "port": "5433",
    }


@pytest.mark.parametrize(
    "variable",
    ["PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"],
)
def test_a_variable_of_libpq_names_a_server(variable):
    assert list(resolved(**{variable: "5433"}).values()) == ["5433"]


@pytest.mark.parametrize("variable", ["PGPASSWORD", "PGPASSFILE", "PGSSLMODE", "PGAPPNAME"])
def test_how_to_get_in_does_not_say_where(variable):
    assert resolve_connection(None, {variable: "require"}) is None


def test_what_libpq_reads_by_itself_is_left_to_it(monkeypatch):
    monkeypatch.setenv("PGHOST", "db")
    settings = resolve_connection(None, os.environ)
    assert settings is not None and settings.parameters == {}
    assert "@db:" in settings.display
    assert resolved(PGHOST="db", PGUSER="ann") == {"user": "ann"}


@pytest.mark.parametrize("port", ["abc", "0", "70000", "-1", "5432.0", " ", "٣"])
@pytest.mark.parametrize("variable", ["POSTGRES_PORT", "PGPORT"])
def test_a_port_that_is_none_is_named_with_the_variable(variable, port):
    with pytest.raises(UsageError) as refused:
        resolve_connection(None, {variable: port, "POSTGRES_DB": "shop"})
    assert variable in refused.value.what and repr(port) in refused.value.what
    assert str(refused.value).count("\n") == 1


def test_a_port_of_libpq_that_is_not_used_does_not_matter():
    assert resolved("host=db port=5433", PGPORT="abc")["port"] == "5433"


@pytest.mark.parametrize("dsn", ["postgresql://db:abc/shop", "host=db port=0", "host=a,b port=5432,70000"])
def test_a_port_in_a_dsn_is_checked_too(dsn):
    with pytest.raises(UsageError, match="The port in --dsn"):
        resolve_connection(dsn, {})


def test_several_hosts_have_several_ports():
    assert resolved("host=a,b port=5432,5433")["port"] == "5432,5433"


def test_the_password_is_read_from_a_file(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    assert resolved(POSTGRES_PASSWORD_FILE=str(tmp_path / "secret"))["password"] == SECRET


def test_a_password_file_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"POSTGRES_PASSWORD_FILE.*No such file"):
        resolve_connection(None, {"POSTGRES_PASSWORD_FILE": str(tmp_path / "absent")})
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        resolve_connection(None, {"POSTGRES_PASSWORD_FILE": str(tmp_path / "bytes")})
    with pytest.raises(UsageError, match="exclude each other") as refused:
        resolve_connection(None, {"POSTGRES_PASSWORD_FILE": str(tmp_path), "POSTGRES_PASSWORD": SECRET})
    assert SECRET not in str(refused.value)


MALFORMED = [
    "foo",
    "",
    "   ",
    "hots=localhost",
    "host='db",
    "postgresql://[::1/shop",
    "postgresql://db/shop?nosuch=1",
    f"host=db password={SECRET} again",
    f"postgresql://ann:{SECRET}@db/%zz",
    f"postgres1://ann:{quote(SECRET, safe='')}@db/shop",
    f"postgresql://ann:{quote(SECRET, safe='')}%zz@db/shop",
    f"postgresql://ann@db/shop?password={quote(SECRET, safe='')}&port",
]


@pytest.mark.parametrize("dsn", MALFORMED)
def test_a_malformed_dsn_is_refused_in_two_lines_without_its_password(dsn):
    with pytest.raises(UsageError) as refused:
        resolve_connection(dsn, {})
    assert refused.value.exit_code == 2
    assert str(refused.value).count("\n") == 1
    shown = f"{refused.value} {refused.value.__cause__} {refused.value.__context__}"
    for hidden in (SECRET, quote(SECRET), quote(SECRET, safe=""), "p@ss", "p%40ss", "w%rd", "w%25rd"):
        assert hidden not in shown


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://tuner:hunter2/shop",
        "postgresql://one,tuner:hunter2/shop",
        "postgresql://tuner:hunter2%zz/shop",
        "postgresql://tuner:5432,two:hunter2/shop",
        "postgresql://db/shop?hunter2",
        "postgresql://db/shop?user=tuner=hunter2",
        "postgresql://[::1]hunter2/shop",
        "host=h user=u hunter2",
        "host=h user=u hunter2 port=5432",
    ],
)
def test_a_password_in_the_wrong_place_is_not_shown(dsn):
    with pytest.raises(UsageError) as refused:
        resolve_connection(dsn, {})
    shown = f"{refused.value} {refused.value.__cause__} {refused.value.__context__}"
    assert "hunter2" not in shown
    assert str(refused.value).count("\n") == 1


def test_a_port_that_is_a_number_is_shown():
    with pytest.raises(UsageError, match=r"--dsn is '70000'"):
        resolve_connection("postgresql://db:70000/shop", {})


def test_what_is_wrong_is_shown_where_no_password_can_be():
    with pytest.raises(UsageError, match='invalid connection option "hots"'):
        resolve_connection("hots=localhost", {})


@pytest.mark.parametrize("value", ["\udcff", "a\0b"])
def test_what_cannot_be_sent_is_refused(value):
    with pytest.raises(UsageError, match="UTF-8"):
        resolve_connection(None, {"POSTGRES_DB": value})


def test_a_dsn_in_bytes_that_are_not_utf_8_is_refused():
    for dsn in ("host=db dbname=\udcff", "postgresql://db/%ff"):
        with pytest.raises(UsageError, match="UTF-8"):
            resolve_connection(dsn, {})


@given(TEXT, TEXT, TEXT)
def test_a_driver_reads_back_every_parameter(password, user, dbname):
    settings = ConnectionSettings.of({"password": password, "user": user, "dbname": dbname, "host": "/tmp/a b"})
    assert conninfo_to_dict(settings.dsn_for_driver()) == settings.parameters
    assert ConnectionSettings.from_dsn(settings.dsn_for_driver()) == settings


@given(TEXT)
def test_a_password_is_never_shown(password):
    settings = ConnectionSettings.of({"password": f"<{password}>", "sslpassword": f"<{password}>", "host": "db"})
    for shown in (repr(settings), str(settings), f"{settings}", settings.display, f"{[settings]}"):
        assert f"<{password}>" not in shown
        assert "\n" not in shown


def test_settings_are_values():
    settings = ConnectionSettings.from_dsn("host=db dbname=shop")
    assert settings == ConnectionSettings.from_dsn("postgresql://db/shop")
    assert hash(settings) == hash(ConnectionSettings.from_dsn("postgresql://db/shop"))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.replaced(dbname="other", user="ann").parameters == {
        "host": "db",
        "dbname": "other",
        "user": "ann",
    }
    assert settings.replaced(host=None).parameters == {"dbname": "shop"}
    assert settings.parameters == {"host": "db", "dbname": "shop"}


@pytest.mark.parametrize(
    ("dsn", "display"),
    [
        ("user=ann host=db dbname=shop", "ann@db:5432/shop"),
        ("user=ann host=::1 port=5433 dbname=shop", "ann@[::1]:5433/shop"),
        ("user=ann", "ann@[local]:5432/ann"),
        ("user=ann host=/run/x dbname=shop", "ann@/run/x:5432/shop"),
        ("user=ann host=a,b port=1,2 dbname=shop", "ann@a,b:1,2/shop"),
        ("user=ann service=main dbname=shop", "ann@[service main]:5432/shop"),
        ("user=ann hostaddr=10.0.0.1 dbname='a\nb\x1b[31m'", "ann@10.0.0.1:5432/a?b?[31m"),
    ],
)
def test_a_server_is_shown_on_one_line(dsn, display):
    assert ConnectionSettings.from_dsn(dsn).display == display


# What libpq and PostgreSQL 14 to 18 say when a connection cannot be made.
REFUSALS = [
    ('FATAL:  password authentication failed for user "ann"', AuthenticationFailed, "PGPASSWORD"),
    ("fe_sendauth: no password supplied", AuthenticationFailed, "PGPASSWORD"),
    (
        'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "ann", database "shop", no encryption',
        AuthenticationFailed,
        "pg_hba",
    ),
    (
        'FATAL:  pg_hba.conf rejects connection for host "10.0.0.9", user "ann", database "shop", SSL encryption',
        AuthenticationFailed,
        "pg_hba",
    ),
    ('FATAL:  Peer authentication failed for user "ann"', AuthenticationFailed, "PGPASSWORD"),
    ('FATAL:  role "ann" does not exist', AuthenticationFailed, "CREATE ROLE"),
    ('FATAL:  role "ann" is not permitted to log in', AuthenticationFailed, "CREATE ROLE"),
    ('server certificate for "other" does not match host name "db"', AuthenticationFailed, "sslmode"),
    ("SSL error: certificate verify failed", AuthenticationFailed, "sslmode"),
    ("server does not support SSL, but SSL was required", AuthenticationFailed, "sslmode"),
    ('FATAL:  database "shop" does not exist', TargetError, "createdb -h db -p 5433 -U ann shop"),
    ('FATAL:  permission denied for database "shop"', PrivilegeMissing, "GRANT CONNECT"),
    ("FATAL:  sorry, too many clients already", ServerUnreachable, "max_connections"),
    ('FATAL:  too many connections for role "ann"', ServerUnreachable, "max_connections"),
    (
        "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        ServerUnreachable,
        "max_connections",
    ),
    (
        "FATAL:  remaining connection slots are reserved for non-replication superuser connections",
        ServerUnreachable,
        "max_connections",
    ),
    ("FATAL:  the database system is starting up", ServerUnreachable, "Wait"),
    ("FATAL:  the database system is shutting down", ServerUnreachable, "Wait"),
    ("FATAL:  the database system is in recovery mode", ServerUnreachable, "Wait"),
    ("FATAL:  the database system is not yet accepting connections", ServerUnreachable, "Wait"),
    ("session is read-only", ReadOnlyServer, "primary"),
    ("Connection refused", ServerUnreachable, "pg_isready"),
    ("server closed the connection unexpectedly", ServerUnreachable, "pg_isready"),
]


@pytest.mark.parametrize(("said", "kind", "next_step"), REFUSALS, ids=[said[:40] for said, _, _ in REFUSALS])
def test_a_refused_connection_is_explained(said, kind, next_step):
    settings = ConnectionSettings.from_dsn(f"postgresql://ann:{quote(SECRET, safe='')}@db:5433/shop")
    error = psycopg.OperationalError(
        f'connection failed: connection to server at "10.0.0.1", port 5433 failed: {said}\nmore'
    )
    failure = connect_failure(error, settings)
    assert type(failure) is kind
    assert next_step in failure.next_step
    assert "ann@db:5433/shop" in failure.what and failure.what.endswith(said.removeprefix("FATAL:  "))
    assert str(failure).count("\n") == 1


def test_the_attempt_that_explains_most_is_shown():
    error = psycopg.OperationalError(
        'connection failed: connection to server at "127.0.0.1", port 5432 failed: Connection refused\n'
        "Multiple connection attempts failed. All failures were:\n"
        "- host: 'localhost', port: None, hostaddr: '::1': connection failed: connection to server at \"::1\", "
        'port 5432 failed: FATAL:  password authentication failed for user "ann"\n'
        "- host: 'localhost', port: None, hostaddr: '127.0.0.1': connection failed: connection to server at "
        '"127.0.0.1", port 5432 failed: Connection refused'
    )
    failure = connect_failure(error, ConnectionSettings.from_dsn("host=localhost user=ann"))
    assert isinstance(failure, AuthenticationFailed)
    assert failure.what.endswith(': password authentication failed for user "ann"')


@pytest.mark.parametrize(
    "dsn",
    [
        "host=/nosuch sslmode=nosuch",
        "host=/nosuch connect_timeout=abc",
        "service=no-such-service",
        "host=a,b port=1,2,3",
        f"host={'a' * 70}.example",
        "host=db hostaddr=not-an-address",
    ],
)
def test_a_parameter_that_libpq_cannot_use_is_a_usage_error(dsn, monkeypatch, tmp_path):
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "absent"))
    with pytest.raises(UsageError) as refused:
        connect(ConnectionSettings.from_dsn(dsn))
    assert str(refused.value).count("\n") == 1
