"""The SQL of the statistics: every file can be reached, and all variants of a query have the same columns."""

import re
from pathlib import Path

import psycopg
import pytest

from ml_postgres_optimization.target.postgres.collector.inventory import INVENTORY_SOURCES
from ml_postgres_optimization.target.postgres.collector.statistics_collector import ONE_ROW_SOURCES
from ml_postgres_optimization.target.postgres.queries import read_query

FOLDER = Path(__file__).parents[2] / "ml_postgres_optimization" / "target" / "postgres" / "sql" / "statistics"
FILES = sorted(FOLDER.glob("*"))
MAJORS = (14, 15, 16, 17, 18)
NAMES = sorted({path.name.split(".")[0] for path in FILES})
ONLY_FROM_16 = {"io"}
NOT_ONE_ROW = {"activity", "statements", "statement_texts"}


def without_comments(text: str) -> str:
    return re.sub(r"--.*|/\*.*?\*/", "", text)


def columns(text: str) -> list[str]:
    """Return the names that the outermost SELECT gives its columns."""
    flat, depth = [], 0
    for character in without_comments(text):
        depth -= character == ")"
        flat.append(" " if depth or character in "()" else character)
        depth += character == "("
    select_list = re.search(r"(?s).*\bSELECT\b(.*?)\bFROM\b", "".join(flat))
    return [expression.split()[-1] for expression in select_list[1].split(",")]


def test_columns_are_those_of_the_outermost_select():
    assert columns("WITH a AS (SELECT 1 AS x) SELECT /* b */ y, max(z, 2) AS m, (SELECT 3 FROM t) AS n FROM a") == [
        "y",
        "m",
        "n",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_reached_on_some_version(path):
    assert re.fullmatch(r"[a-z_]+(\.pg1\d)?\.sql", path.name)
    reached = {major for major in MAJORS if path.name == chosen_file(path.name.split(".")[0], major)}
    assert reached


def chosen_file(name: str, major: int) -> str | None:
    """Return the file that holds what is read for `name` on `major`."""
    try:
        text = read_query(f"statistics/{name}", major)
    except FileNotFoundError:
        return None
    (chosen,) = [path.name for path in FILES if path.read_text() == text]
    return chosen


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_there_on_every_version_that_has_something_to_ask(name):
    missing = {major for major in MAJORS if chosen_file(name, major) is None}
    assert missing == ({14, 15} if name in ONLY_FROM_16 else set())


@pytest.mark.parametrize(
    ("name", "major", "file"),
    [
        ("wal", 14, "wal.sql"),
        ("wal", 17, "wal.sql"),
        ("wal", 18, "wal.pg18.sql"),
        ("wal", 99, "wal.pg18.sql"),
        ("background_writer", 16, "background_writer.sql"),
        ("background_writer", 17, "background_writer.pg17.sql"),
        ("background_writer", 18, "background_writer.pg18.sql"),
        ("io", 17, "io.pg16.sql"),
    ],
)
def test_the_highest_suffix_not_above_the_server_is_taken(name, major, file):
    assert chosen_file(name, major) == file


def test_a_query_that_there_is_not_is_an_error():
    with pytest.raises(FileNotFoundError):
        read_query("statistics/nonsense", 15)


@pytest.mark.parametrize("name", NAMES)
def test_all_variants_have_the_same_columns(name):
    variants = {path.name: columns(path.read_text()) for path in FILES if path.name.split(".")[0] == name}
    assert len({tuple(names) for names in variants.values()}) == 1, variants


def test_the_collectors_ask_every_query():
    assert {*ONE_ROW_SOURCES, *INVENTORY_SOURCES, "statements_info"} | NOT_ONE_ROW == set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_query_says_that_it_is_ours_where_it_comes_from_and_changes_nothing(path):
    text = path.read_text()
    assert "/* genesis-pg */" in text
    assert re.match(r"-- .*\n(-- .*\n)*-- https://www\.postgresql\.org/docs/\S+\n(SELECT|WITH) ", text)
    assert not re.search(r"reset\w*\(|;|\b(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|SET)\b", without_comments(text))


@pytest.mark.parametrize("path", [path for path in FILES if path.name.split(".")[0] not in NOT_ONE_ROW], ids=str)
def test_a_column_is_named_by_convention(path):
    names = columns(path.read_text())
    assert len(names) == len(set(names))
    assert not [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]
    timed = [name for name in names if re.search(r"(_time|_ms|duration)$|_seconds", name)]
    assert not [name for name in timed if not re.search(r"_seconds(_total)?$", name)]


@pytest.fixture(scope="module")
def connection(server, binaries):
    """A session in which the extension is there where it can be; nothing is kept."""
    with psycopg.connect(server.dsn) as connection:
        if binaries.has_library("pg_stat_statements"):
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public")
        if binaries.has_library("pgstattuple"):
            connection.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple SCHEMA public")
        yield connection
        connection.rollback()


@pytest.mark.parametrize("name", NAMES)
def test_a_real_server_answers_with_the_columns_that_the_text_promises(connection, binaries, name):
    if name in ONLY_FROM_16 and binaries.major < 16:
        pytest.skip("nothing to ask")
    if name == "inexact_bloat" and not binaries.has_library("pgstattuple"):
        pytest.skip("these binaries have no contrib modules")
    if name.startswith("statement") and not binaries.has_library("pg_stat_statements"):
        pytest.skip("these binaries have no contrib modules")
    text = read_query(f"statistics/{name}", binaries.major)
    parameters = {"queryids": [1]} if "%(queryids)s" in text else None
    cursor = connection.execute(psycopg.sql.SQL(text).format(schema=psycopg.sql.Identifier("public")), parameters)
    assert [column.name for column in cursor.description] == columns(text)
    assert cursor.rowcount == 1 or name in NOT_ONE_ROW - {"activity"}
