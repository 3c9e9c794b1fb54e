"""The examples of docs/retries.md run, one after the other, as somebody would type them."""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "retries.md"


def test_the_examples_run(database):
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance numeric NOT NULL)")
        connection.execute("INSERT INTO accounts VALUES (1, 100), (2, 100)")
    names = {"dsn": database, "url": as_url(database)}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 10
    for block in blocks:
        code = compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.isawaitable(result):
            asyncio.run(result)
    with psycopg.connect(database) as connection:
        balances = dict(connection.execute("SELECT id, balance FROM accounts").fetchall())
    # one deposit each by the doors, by five drivers and through the limiter; transfers are 5 each; one payment of 17
    assert balances == {1: 100 + 2 + 5 + 1 - 2 * 5 - 17, 2: 100 + 2 * 5}


def as_url(dsn):
    parameters = conninfo_to_dict(dsn)
    return f"postgresql://{parameters['user']}@/{parameters['dbname']}?host={parameters['host']}&port={parameters['port']}"
