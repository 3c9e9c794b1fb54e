r"""Scripts on a real server, through the driver of the load."""

import asyncio
import re
from pathlib import Path
from random import Random

import asyncpg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script import parse_script, play


@pytest.fixture
def table(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, word text)")
        connection.execute("INSERT INTO t SELECT id, 'word ' || id FROM generate_series(1, 10) AS id")
    return database


def rows(dsn):
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("SELECT id, word FROM t").fetchall())


async def connect(dsn):
    words = conninfo_to_dict(dsn)
    return await asyncpg.connect(host=words["host"], port=words["port"], user=words["user"], database=words["dbname"])


def run(dsn, text, *, seed=1, **variables):
    """Play a script on a connection of its own, and return whether a transaction was open afterwards."""

    async def once():
        connection = await connect(dsn)
        try:
            script = parse_script(text, name="orders", variables=[*variables])
            await play(script, connection, rng=Random(seed), variables=variables)
        finally:
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()

    asyncio.run(once())


def test_what_is_committed_stays(table):
    run(table, "\\set id 10 + :client_id\nBEGIN;\nUPDATE t SET word = 'id :id' WHERE id = :id;\nEND;", client_id=0)
    assert rows(table)[10] == "id 10"


def test_an_error_in_a_transaction_rolls_back(table):
    with pytest.raises(asyncpg.UniqueViolationError):
        run(table, "BEGIN;\nDELETE FROM t WHERE id = 1;\nINSERT INTO t VALUES (2);\nEND;")
    assert len(rows(table)) == 10


def test_an_expression_that_fails_in_a_transaction_rolls_back(table):
    with pytest.raises(UsageError, match=r"^script orders, line 3: division by zero"):
        run(table, "BEGIN;\nDELETE FROM t;\n\\set x 1 / 0\nEND;")
    assert len(rows(table)) == 10


def test_a_transaction_that_is_left_open_is_refused(table):
    with pytest.raises(UsageError, match=r"^script orders ends inside a transaction"):
        run(table, "BEGIN;\nDELETE FROM t;")
    with pytest.raises(UsageError, match=r"^script orders ends inside a transaction"):
        run(table, "BEGIN;\nSELECT 1;\nCOMMIT AND CHAIN;")
    assert len(rows(table)) == 10


def test_results_are_stored_and_used(table):
    run(
        table,
        "SELECT count(*) AS n, avg(id) AS middle, min(word) AS first, now() AS at, true AS yes FROM t \\gset t_\n"
        "\\set next :t_n + 1\n"
        "\\if :t_yes\n"
        "INSERT INTO t VALUES (:next, ':t_first, :t_middle');\n"
        "\\endif\n"
        "SELECT ':t_at'::timestamptz <= now() AS past \\gset\n"
        "\\if not :past\nSELECT 1 / 0;\n\\endif\n",
    )
    assert rows(table)[11] == "word 1, 5.5000000000000000"


def test_a_null_is_an_empty_text(table):
    run(table, "SELECT NULL AS nothing \\gset\nINSERT INTO t VALUES (11, ':nothing');")
    assert rows(table)[11] == ""


def test_a_query_of_no_rows_stores_nothing(table):
    run(table, "\\set id 11\nSELECT id FROM t WHERE id > 99 \\aset\nINSERT INTO t VALUES (:id, '');")
    assert 11 in rows(table)
    with pytest.raises(UsageError, match=r"^script orders, line 1: \\gset stands behind a query that returns 0 rows"):
        run(table, "SELECT id FROM t WHERE id > 99 \\gset")


def test_branches_and_sleeps(table):
    run(
        table,
        "\\if random(1, 2) > 2\nDELETE FROM t;\n\\else\n"
        "SELECT clock_timestamp() AS before \\gset\n\\sleep 20 ms\n"
        "SELECT clock_timestamp() - ':before'::timestamptz >= '20 ms' AS slept \\gset\n"
        "\\if :slept\nINSERT INTO t VALUES (12, 'slept');\n\\endif\n\\endif\n",
    )
    assert rows(table)[12] == "slept"


def test_joined_statements_are_one_transaction(table):
    with pytest.raises(asyncpg.DivisionByZeroError):
        run(table, "DELETE FROM t \\; SELECT 1 / 0;")
    assert len(rows(table)) == 10
    run(table, "DELETE FROM t \\; INSERT INTO t VALUES (1, 'one');")
    assert rows(table) == {1: "one"}


def test_the_same_seed_does_the_same(table):
    script = "\\set id random_zipfian(1, 1000000, 1.1) + 10\nINSERT INTO t VALUES (:id, 'drawn');"
    run(table, script, seed=5)
    with pytest.raises(asyncpg.UniqueViolationError):
        run(table, script, seed=5)


def test_what_is_cancelled_leaves_no_transaction(table):
    async def cancelled(delay):
        connection = await connect(table)
        script = parse_script("BEGIN;\nDELETE FROM t;\nSELECT pg_sleep(60);\nEND;", name="orders")
        task = asyncio.create_task(play(script, connection, rng=Random(1)))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT count(*) FROM t") == 10
        await connection.close()

    for delay in (0.0, 0.001, 0.2):
        asyncio.run(cancelled(delay))
    assert len(rows(table)) == 10


def test_a_connection_that_is_lost_says_so(table):
    async def lost():
        connection = await connect(table)
        script = parse_script(
            "BEGIN;\nDELETE FROM t;\nSELECT pg_terminate_backend(pg_backend_pid());\nEND;", name="x"
        )
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await play(script, connection, rng=Random(1))
        connection.terminate()

    asyncio.run(lost())
    assert len(rows(table)) == 10


def test_routines_and_rules_are_one_statement_each(table, binaries):
    run(table, "CREATE RULE r AS ON DELETE TO t DO ALSO (SELECT 1; SELECT 2);")
    if binaries.major >= 14:
        run(
            table,
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT 1; "
            "SELECT CASE WHEN true THEN 7 END; END;\nSELECT f() AS f \\gset\nUPDATE t SET word = ':f' WHERE id = 1;",
        )
        assert rows(table)[1] == "7"


def test_the_example_of_the_documentation(database):
    page = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text()
    example = next(block for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) if "\\set" in block)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, balance int)")
        connection.execute("INSERT INTO customers SELECT id, 1000 FROM generate_series(1, 10000) AS id")
        connection.execute("CREATE TABLE orders (customer int, amount int)")
        for seed in range(5):
            run(database, example, seed=seed)
        spent = connection.execute("SELECT sum(1000 - balance) FROM customers").fetchone()
        assert spent == connection.execute("SELECT sum(amount) FROM orders").fetchone()
        assert spent[0] > 0
