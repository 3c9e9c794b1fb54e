r"""What a play sends, in which order, and what it leaves behind; without a server."""

import asyncio
import datetime
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script import parse_script, play


class Refused(Exception):
    """What a driver raises."""


class Recorder:
    """A connection that notes what it is sent, and answers as it was told."""

    def __init__(self, rows=(), refuses=None):
        self.sent = []
        self.rows = rows
        self.refuses = refuses
        self.is_open = False

    async def execute(self, query):
        self.sent.append(query)
        if query == "BEGIN":
            self.is_open = True
        elif query in {"COMMIT", "ROLLBACK"}:
            self.is_open = False
        if query == self.refuses:
            raise Refused(query)

    async def fetch(self, query):
        await self.execute(query)
        return self.rows

    def is_in_transaction(self):
        return self.is_open


def run(text, connection, seed=1, pause=None, **variables):
    script = parse_script(text, name="orders", variables=[*variables])
    options = {"pause": pause} if pause else {}
    asyncio.run(play(script, connection, rng=Random(seed), variables=variables, **options))
    return connection.sent


def test_the_same_seed_sends_the_same():
    text = "\\set x random(1, 1000000)\n\\set y random_gaussian(1, 1000, 5)\nSELECT :x, :y, :scale;"
    first, again, other = (run(text, Recorder(), seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_branches():
    text = "\\if :x > 5\nSELECT 1;\n\\elif :x > 3\nSELECT 2;\n\\else\nSELECT 3;\n\\endif\nSELECT 4;"
    sent = [run(text, Recorder(), x=x) for x in (6, 4, None)]
    assert sent == [["SELECT 1", "SELECT 4"], ["SELECT 2", "SELECT 4"], ["SELECT 3", "SELECT 4"]]


def test_built_in_variables_have_values():
    assert run("SELECT :client_id, :scale;", Recorder(), client_id=7) == ["SELECT 7, 1"]


def test_a_play_does_not_change_what_it_was_given():
    variables = {"x": 1}
    script = parse_script("\\set x :x + 1\nSELECT :x;", name="orders", variables=variables)
    connection = Recorder()
    for _ in range(2):
        asyncio.run(play(script, connection, rng=Random(1), variables=variables))
    assert connection.sent == ["SELECT 2", "SELECT 2"]
    assert variables == {"x": 1}


def test_sleeps():
    slept = []

    async def pause(seconds):
        slept.append(seconds)

    run("\\sleep 10 ms\n\\sleep :w us\n\\sleep :two s", Recorder(), pause=pause, w=7, two="2")
    assert slept == pytest.approx([0.01, 7e-6, 2.0])


@pytest.mark.parametrize("value", [-1, 86_401, "wood", None])
def test_a_sleep_that_makes_no_sense(value):
    with pytest.raises(UsageError, match=r"^script orders, line 2: "):
        run("SELECT 1;\n\\sleep :w", Recorder(), w=value)


def test_rows_become_variables():
    row = {"a": 5, "b": "it's", "c": None, "d": True, "e": 2.5, "f": Decimal("1E+3"), "g": 3.0, "h": float("-inf")}
    text = "SELECT x \\gset p_\nSELECT :p_a, ':p_b', ':p_c', :p_d, :p_e, :p_f, :p_g, ':p_h', :p_z_;"
    with pytest.raises(UsageError, match="the variable :p_z_ is not set"):
        run(text, Recorder([row]))
    sent = run(text.replace(", :p_z_", ""), Recorder([row]))
    assert sent[-1] == "SELECT 5, 'it's', '', t, 2.5, 1000, 3, '-Infinity'"


def test_rows_of_other_types_become_text():
    row = {
        "a": UUID(int=1),
        "b": datetime.date(2026, 1, 2),
        "c": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    }
    sent = run("SELECT x \\gset\nSELECT ':a', ':b', ':c';", Recorder([row]))
    assert sent[-1] == "SELECT '00000000-0000-0000-0000-000000000001', '2026-01-02', '2026-01-02 03:04:05+00:00'"


def test_the_last_of_several_rows_is_kept_where_that_is_asked_for():
    text = "\\set a 0\nSELECT x \\aset\nSELECT :a;"
    assert run(text, Recorder([]))[-1] == "SELECT 0"
    assert run(text, Recorder([{"a": 1}, {"a": 2}]))[-1] == "SELECT 2"


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], r"\\gset stands behind a query that returns 0 rows"),
        ([{"a": 1}, {"a": 2}], r"\\gset stands behind a query that returns 2 rows"),
        ([{"?column?": 1}], r"'\?column\?' cannot be the name of a variable"),
        ([{"a": [1, 2]}], "the column a has a type or value that cannot be stored"),
        ([{"a": datetime.date.max}], "the column a has a type or value that cannot be stored"),
        ([{"a": datetime.datetime.min}], "the column a has a type or value that cannot be stored"),
    ],
)
def test_rows_that_cannot_be_stored(rows, what):
    connection = Recorder(rows)
    with pytest.raises(UsageError, match=f"^script orders, line 2: {what}"):
        run("BEGIN;\nSELECT x \\gset\nCOMMIT;", connection)
    assert connection.sent == ["BEGIN", "SELECT x", "ROLLBACK"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\\set x 1 / 0", 1),
        ("SELECT 1;\n\\if 1 / 0\n\\endif", 2),
        ("\\if true\n\\if false\n\\elif 1 / 0\n\\endif\n\\endif", 3),
    ],
)
def test_an_expression_that_fails_is_said_with_its_line(text, line):
    with pytest.raises(UsageError, match=f"^script orders, line {line}: division by zero\n"):
        run(text, Recorder())


def test_a_failure_in_a_transaction_is_rolled_back_and_comes_through():
    connection = Recorder(refuses="SELECT 1")
    with pytest.raises(Refused):
        run("BEGIN; SELECT 1; COMMIT;", connection)
    assert connection.sent == ["BEGIN", "SELECT 1", "ROLLBACK"]


def test_a_failure_outside_a_transaction_needs_no_rollback():
    connection = Recorder(refuses="SELECT 1")
    with pytest.raises(Refused):
        run("SELECT 1; SELECT 2;", connection)
    assert connection.sent == ["SELECT 1"]


def test_the_first_failure_is_the_one_that_is_told():
    class Gone(Recorder):
        async def execute(self, query):
            await super().execute(query)
            if query == "ROLLBACK":
                raise ConnectionResetError

    with pytest.raises(Refused, match="SELECT 1"):
        run("BEGIN; SELECT 1;", Gone(refuses="SELECT 1"))


def test_a_connection_that_does_not_answer_any_more():
    class Gone(Recorder):
        def is_in_transaction(self):
            raise AttributeError

    connection = Gone(refuses="SELECT 1")
    with pytest.raises(Refused):
        run("BEGIN; SELECT 1;", connection)
    assert connection.sent == ["BEGIN", "SELECT 1"]


def test_a_transaction_that_is_left_open_is_refused():
    connection = Recorder()
    with pytest.raises(UsageError, match=r"^script orders ends inside a transaction\n"):
        run("BEGIN; SELECT 1;", connection)
    assert connection.sent == ["BEGIN", "SELECT 1", "ROLLBACK"]


def test_what_is_cancelled_is_rolled_back():
    class Slow(Recorder):
        async def execute(self, query):
            await super().execute(query)
            if query == "BEGIN":
                await asyncio.sleep(3600)

    async def cancelled(connection):
        script = parse_script("BEGIN; SELECT 1; COMMIT;", name="orders")
        task = asyncio.create_task(play(script, connection, rng=Random(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    connection = Slow()
    asyncio.run(cancelled(connection))
    assert connection.sent == ["BEGIN", "ROLLBACK"]


def test_a_rollback_that_is_struck_by_the_cancellation_is_sent_again():
    class Struck(Recorder):
        async def execute(self, query):
            if query == "ROLLBACK" and query not in self.sent:
                self.sent.append(query)
                raise Refused("canceling statement due to user request")
            await super().execute(query)

    connection = Struck(refuses="DELETE FROM t")
    with pytest.raises(Refused, match="DELETE"):
        run("BEGIN;\nDELETE FROM t;\nEND;", connection)
    assert connection.sent[-2:] == ["ROLLBACK", "ROLLBACK"]
    assert not connection.is_in_transaction()
