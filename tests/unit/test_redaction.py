"""Passwords in the wrong place, and values in the texts of queries."""

import json
import os

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.logs import LOG_NAME, open_log
from ml_postgres_optimization.redaction import without_passwords
from ml_postgres_optimization.target.postgres.collector.literals import without_literals
from ml_postgres_optimization.target.postgres.connection.settings import HOW_TO_WRITE

SECRET = "xK7secretq9Z"


@pytest.mark.parametrize(
    "text",
    [
        f"No such command 'postgresql://ann:{SECRET}@db/shop'.",
        f"postgresql://a b\nc:{SECRET}@db and more",
        f"postgresql://ann@corp:{SECRET}@db",
        f"host=db password={SECRET} port=1",
        f"host=db oauth_client_secret={SECRET} scram_client_key='{SECRET}'",
        f"ALTER ROLE a PASSWORD $x${SECRET} ' it$x$",
        f"host=db PASSWORD = 'a \\' {SECRET}' port=1",
        f"postgresql://db/shop?sslmode=require&password={SECRET}",
        repr(f"host=db password='{SECRET} b'"),
        repr({"password": SECRET}),
        f'database "\':{SECRET}@127.0.0.1" does not exist',
        f"postgresql://ann:{SECRET}",
        f"postgresql://ann:a {SECRET}@db",
        f"postgresql://ann:it's {SECRET}@db",
        f"ALTER ROLE ann PASSWORD '{SECRET}'",
        f"ALTER ROLE ann ENCRYPTED PASSWORD E'a\\'{SECRET}'",
        f"genesis-pg doctor --password {SECRET}",
        f"password: {SECRET}",
    ],
)
def test_a_password_is_blotted_out_wherever_it_stands(text):
    assert SECRET not in without_passwords(text)
    assert SECRET not in str(UsageError(text, text))


@pytest.mark.parametrize(
    "text",
    [
        "No connection to ann@db.example:5432/shop: Connection refused",
        'password authentication failed for user "ann"',
        "Give its password by PGPASSWORD or ~/.pgpass.",
        "See https://www.postgresql.org/docs/current/libpq.html",
        "Name it NAME@WEIGHT.sql.",
        HOW_TO_WRITE,
        "postgresql://db:5432/shop, postgresql://[::1]:5432,other:5433/shop and http://localhost:8080",
        "see http://a/b then write to me@x",
        "pwd=/home/x",
        "://" * 50_000,  # as long as it takes where each is looked at once
    ],
)
def test_what_holds_no_password_stays(text):
    assert without_passwords(text) == text


def test_a_log_has_no_password_in_any_text(tmp_path):
    with open_log(tmp_path, run="r") as log:
        try:
            raise ValueError(f"postgresql://ann:{SECRET}@db")
        except ValueError as error:
            log.error("defect", exc_info=error, what=f"password={SECRET}")
    written = (tmp_path / LOG_NAME).read_text()
    assert SECRET not in written and "ValueError" in json.loads(written)["exception"]


def test_a_log_has_no_password_within_lists_mappings_and_objects_either(tmp_path):
    dsn = f"postgresql://ann:{SECRET}@db"
    with open_log(tmp_path, run="r") as log:
        log.info(
            "given",
            words=["--dsn", dsn],
            nested={"a": {"password": SECRET}, "b": (dsn, 1)},
            error=UsageError(dsn, ""),
        )
        log.info("given", path=ValueError(f"password={SECRET}"), count=3, share=0.5, missing=None, found=True)
    first, second = map(json.loads, (tmp_path / LOG_NAME).read_text().splitlines())
    assert SECRET not in str((first, second))
    assert first["nested"]["b"] == ["postgresql://***@db", 1] and first["words"][0] == "--dsn"
    assert (second["count"], second["share"], second["missing"], second["found"]) == (3, 0.5, None, True)


def test_a_log_is_for_us_alone_whatever_the_umask_is(tmp_path):
    before = os.umask(0)
    try:
        with open_log(tmp_path, run="r") as log:
            log.info("started")
    finally:
        os.umask(before)
    assert (tmp_path / LOG_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        (f"CREATE ROLE a PASSWORD '{SECRET}' LOGIN", "CREATE ROLE a PASSWORD '…' LOGIN"),
        (f"ALTER ROLE \"o'brien\" PASSWORD E'it\\'s {SECRET}'", "ALTER ROLE \"o'brien\" PASSWORD '…'"),
        (f"ALTER ROLE a PASSWORD 'back\\' VALID UNTIL '{SECRET}'", "ALTER ROLE a PASSWORD '…' VALID UNTIL '…'"),
        (f"DO $do$ {SECRET} ' $$ $do$", "DO '…'"),
        (f"CREATE SUBSCRIPTION s CONNECTION 'password={SECRET}", "CREATE SUBSCRIPTION s CONNECTION '…'"),
        (f"/* /* x */ it's */ CREATE ROLE a PASSWORD '{SECRET}'", "'…'"),
        ("SELECT a$b$c, $1 -- it's\n, /* it's */ \"it's\"", "SELECT a$b$c, $1 -- it's\n, /* it's */ \"it's\""),
    ],
)
def test_a_query_is_kept_without_its_values(statement, shown):
    assert without_literals(statement) == shown
