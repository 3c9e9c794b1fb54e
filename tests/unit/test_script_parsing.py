r"""Scripts of pgbench's language: where SQL is cut, what the meta commands mean, and what is refused where."""

import pickle
from random import Random

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script import parse_script, split_statements
from ml_postgres_optimization.workload.script.command import Assignment, Conditional, Sleep, Statement, Storing
from ml_postgres_optimization.workload.script.expression import Scope

TPCB = r"""\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
INSERT INTO pgbench_history (bid, aid, delta, mtime) VALUES (:bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
"""


def commands(text, **options):
    return parse_script(text, name="test", **options).commands


def sql(text, values=None, **options):
    r"""Return the text of every statement, each :name of `values` being set."""
    values = values or {}
    scope = Scope(values, Random(1))
    parsed = commands(text, variables=[*values], **options)
    return [command.text(scope.texts) for command in parsed if isinstance(command, Statement)]


def test_the_script_of_tpcb():
    script = parse_script(TPCB, name="tpcb", weight=3)
    assert (script.name, script.weight) == ("tpcb", 3)
    assert [type(command) for command in script.commands] == [Assignment] * 3 + [Statement] * 5
    assert [command.line for command in script.commands] == [*range(1, 9)]
    scope = Scope({"aid": 7, "bid": 1, "delta": -12}, Random(1))
    assert script.commands[4].text(scope.texts) == (
        "UPDATE pgbench_accounts SET abalance = abalance + -12 WHERE aid = 7"
    )
    assert pickle.loads(pickle.dumps(script)) == script


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1", ["SELECT 1"]),
        (";;SELECT 1;;", ["SELECT 1"]),
        ("SELECT ';';", ["SELECT ';'"]),
        ("SELECT 'it''s; so';", ["SELECT 'it''s; so'"]),
        ("SELECT 'a\\';SELECT 2;", ["SELECT 'a\\'", "SELECT 2"]),
        ("SELECT E'a\\';b';", ["SELECT E'a\\';b'"]),
        ("SELECT E'a'\n'\\';b';", ["SELECT E'a'\n'\\';b'"]),
        ("SELECT namE'a\\';SELECT 2;", ["SELECT namE'a\\'", "SELECT 2"]),
        ('SELECT "a;b""c;";', ['SELECT "a;b""c;"']),
        ("SELECT $$a;'b$$;", ["SELECT $$a;'b$$"]),
        ("SELECT $t$a;$$;$t$;", ["SELECT $t$a;$$;$t$"]),
        ("SELECT a$b$ ; SELECT c$b$;", ["SELECT a$b$", "SELECT c$b$"]),
        ("SELECT $1;", ["SELECT $1"]),
        ("-- a; comment\nSELECT 1 -- b;\n+ 1;", ["SELECT 1 -- b;\n+ 1"]),
        ("/* a; /* nested; */ ; */ SELECT 1;", ["/* a; /* nested; */ ; */ SELECT 1"]),
        ("-- nothing\n/* here */;SELECT 1;", ["SELECT 1"]),
        ("SELECT 1 -- last", ["SELECT 1 -- last"]),
        ("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);", None),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;", None),
        ("create or replace procedure p() begin atomic select 1; end;", None),
        ("BEGIN; SELECT 1; END;", ["BEGIN", "SELECT 1", "END"]),
        ("SELECT 1 \\; SELECT 2;", ["SELECT 1 ; SELECT 2"]),
        ("SELECT ARRAY[1,2][1\\:2];", ["SELECT ARRAY[1,2][1:2]"]),
        ("SELECT 1\n\\set x 1\nSELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("SELECT '\\set x';", ["SELECT '\\set x'"]),
        ("SELECT 10 % 3, '%s %(a)s';", ["SELECT 10 % 3, '%s %(a)s'"]),
        ("SELECT 'ünï;cödé', é FROM ö;", ["SELECT 'ünï;cödé', é FROM ö"]),
        ("SELECT 1;\r\nSELECT 2;\r\n", ["SELECT 1", "SELECT 2"]),
    ],
)
def test_where_sql_is_cut(text, statements):
    assert sql(text) == (statements or [text.removesuffix(";")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT :a;", "SELECT 7"),
        ("SELECT :a::int, :b :: text, c::a;", "SELECT 7::int, x :: text, c::a"),
        ("SELECT ':a', $$:a$$, \":a\" /* :a */;", "SELECT '7', $$7$$, \"7\" /* 7 */"),
        ("SELECT ':c', '12:30', 'a:c' /* :c */;", "SELECT ':c', '12:30', 'a:c' /* :c */"),
        ("SELECT v[:a], v[1:a], v[1:c], v[:c];", "SELECT v[7], v[17], v[1:c], v[:c]"),
        ("SELECT :ab;", "SELECT 1.5"),
        ("SELECT :a:b;", "SELECT 7x"),
        ("SELECT :t, :n;", "SELECT true, NULL"),
        ("SELECT x % :a, '%';", "SELECT x % 7, '%'"),
        ("CALL p(x := :a, y => :a);", "CALL p(x := 7, y => 7)"),
        ("SELECT 1:a;", "SELECT 17"),
    ],
)
def test_variables_are_put_in_as_pgbench_does(text, expected):
    values = {"a": 7, "b": "x", "ab": 1.5, "t": True, "n": None}
    assert sql(text, values) == [expected]


def test_what_is_put_in_is_not_looked_at_again():
    assert sql("SELECT :a;", {"a": ":b %s %(b)s", "b": 1}) == ["SELECT :b %s %(b)s"]


def test_doubles_have_15_digits():
    assert sql("SELECT :a, :b;", {"a": 1 / 3, "b": 1e20}) == ["SELECT 0.333333333333333, 1e+20"]


def test_a_variable_of_a_branch_that_was_not_taken_is_named_where_it_is_used():
    conditional, statement = commands("\\if :scale > 5\n\\set x 1\n\\endif\nSELECT :x, ':x';")
    assert isinstance(conditional, Conditional)
    with pytest.raises(UsageError, match="the variable :x is not set"):
        statement.text({})
    # in a quote it may be meant
    assert sql("\\if false\n\\set x 1\n\\endif\nSELECT ':x';") == ["SELECT ':x'"]


def test_built_in_variables_need_no_set():
    assert len(commands("SELECT :client_id, :scale, :random_seed, :default_seed;")) == 1


def test_sleep_takes_units_and_variables():
    script = "\\set w 5\n\\sleep 10 ms\n\\sleep 3\n\\sleep 7us\n\\SLEEP :w MS\n\\sleep :w\n\\sleep +2 s"
    assert [(c.duration, c.unit_seconds) for c in commands(script) if isinstance(c, Sleep)] == [
        (10, 1e-3),
        (3, 1.0),
        (7, 1e-6),
        ("w", 1e-3),
        ("w", 1.0),
        (2, 1.0),
    ]


def test_conditionals_nest():
    (outer,) = commands(
        "\\if :scale = 1\nSELECT 1;\n\\if :client_id\nSELECT 2;\n\\endif\n\\elif true\nSELECT 3\n\\else\n\\endif"
    )
    assert [branch.line for branch in outer.branches] == [1, 6, 8]
    assert [len(branch.commands) for branch in outer.branches] == [2, 1, 0]
    assert outer.branches[2].condition is None
    inner = outer.branches[0].commands[1]
    assert isinstance(inner, Conditional)
    assert inner.branches[0].commands[0].text({}) == "SELECT 2"


def test_results_are_stored():
    parsed = commands(
        "SELECT 1 AS a \\gset\nSELECT 2 AS b; \\gset p_\nSELECT 3 AS c \\aset q_\nSELECT :a, :p_b, :q_c;"
    )
    assert [command.storing for command in parsed] == [
        Storing("", True),
        Storing("p_", True),
        Storing("q_", False),
        None,
    ]


def test_a_meta_command_goes_on_after_a_backslash():
    (assignment,) = commands("\\set x \\\n 1 + \\\r\n 2\n")
    assert assignment.expression.evaluate(Scope({}, Random(1))) == 3


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("SELECT 1;\nSELECT 'a", "line 2, column 8", "the quote ' is not closed"),
        ('SELECT "a', "line 1, column 8", 'the quote " is not closed'),
        ("SELECT $x$a$$", "line 1, column 8", r"the quote \$x\$ is not closed"),
        ("SELECT 1 /* /* */", "line 1, column 10", r"the comment /\* is not closed"),
        ("SELECT (1;\nSELECT 2;", "line 1, column 8", "a parenthesis is not closed"),
        ("SELECT (1 \\gset", "line 1, column 8", "a parenthesis is not closed"),
        ("SELECT 1;\n SELECT :nosuch;", "line 2, column 9", "the variable :nosuch is not set before"),
        ("SELECT :x;\n\\set x 1", "line 1, column 8", "the variable :x is not set before"),
        ("\\set y :x + 1", "line 1, column 8", "the variable :x is not set before"),
        ("SELECT 1 \\gset a_\nSELECT :b;", "line 2, column 8", "the variable :b is not set before"),
        ("\\sleep :x", "line 1, column 1", "the variable :x is not set before"),
        ("\\set", "line 1, column 5", "needs the name of a variable, not ''"),
        ("\\set 1a 1", "line 1, column 6", "needs the name of a variable, not '1a'"),
        ("\\set x", "line 1, column 7", "an expression is expected, not the end of the line"),
        ("\\set x 1; SELECT 1;", "line 1, column 9", "';' belongs to no expression"),
        ("\\set x 1 +\n2", "line 1, column 11", "an expression is expected, not the end of the line"),
        ("SELECT 1;\n  \\foo 1", "line 2, column 3", r"there is no meta command '\\foo'"),
        ("\\", "line 1, column 1", r"there is no meta command '\\'"),
        ("\\shell rm", "line 1, column 1", r"\\shell runs a command of this machine"),
        ("\\setshell x rm", "line 1, column 1", r"\\setshell runs a command of this machine"),
        ("\\startpipeline", "line 1, column 1", "pipelines are not supported"),
        ("\\syncpipeline", "line 1, column 1", "pipelines are not supported"),
        ("\\if true\nSELECT 1;", "line 1, column 1", r"\\if has no \\endif"),
        ("SELECT 1;\n\\endif", "line 2, column 1", r"\\endif has no \\if"),
        ("\\else", "line 1, column 1", r"\\else has no \\if"),
        ("\\elif true", "line 1, column 1", r"\\elif has no \\if"),
        ("\\if true\n\\else\n\\else\n\\endif", "line 3, column 1", r"\\else stands after \\else"),
        ("\\if true\n\\else\n\\elif true\n\\endif", "line 3, column 1", r"\\elif stands after \\else"),
        ("\\if true\n\\else 1\n\\endif", "line 2, column 1", r"\\else has 1 arguments"),
        ("\\if true\n" * 21, "line 21, column 1", r"\\if is nested more than 20 deep"),
        ("\\sleep", "line 1, column 1", r"\\sleep has 0 arguments"),
        ("\\sleep 1 ms now", "line 1, column 1", r"\\sleep has 3 arguments"),
        ("\\sleep -1", "line 1, column 1", r"\\sleep cannot take '-1'"),
        ("\\sleep 1.5 s", "line 1, column 1", r"\\sleep cannot take '1.5'"),
        ("\\sleep 1ms ms", "line 1, column 1", r"\\sleep cannot take '1ms'"),
        ("\\sleep 1 h", "line 1, column 1", "'h' is no unit of time"),
        ("\\sleep " + "9" * 5000, "line 1, column 1", r"\\sleep cannot take '9+\.\.\.'"),
        ("\\gset", "line 1, column 1", r"\\gset stands behind no SQL statement"),
        ("\\set x 1\n\\gset", "line 2, column 1", r"\\gset stands behind no SQL statement"),
        ("SELECT 1 \\gset\n\\gset", "line 2, column 1", r"\\gset stands behind no SQL statement"),
        ("SELECT 1 \\; SELECT 2 \\gset", "line 1, column 22", r"\\gset cannot follow \\;"),
        ("SELECT 1 \\gset 1a", "line 1, column 10", "the prefix '1a' makes no name of a variable"),
        ("COPY t FROM STDIN;", "line 1, column 1", "COPY from or to the client is not supported"),
        ("SELECT 1 \\; copy t to stdout;", "line 1, column 1", "COPY from or to the client is not supported"),
        ("SELECT '\0';", "line 1, column 9", "there is a NUL character"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, where, what):
    with pytest.raises(UsageError, match=rf"^orders\.sql, {where}: .*{what}") as caught:
        parse_script(text, name="orders", origin="orders.sql")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and all(lines)


@pytest.mark.parametrize("text", ["", "  \n", "-- only a comment", "/* only */;"])
def test_a_script_without_a_command_is_refused(text):
    with pytest.raises(UsageError, match="script orders: there is no command in it"):
        parse_script(text, name="orders")


@pytest.mark.parametrize("weight", [-1, 2**31, True])
def test_a_weight_is_a_whole_number(weight):
    with pytest.raises(UsageError, match="the weight is"):
        parse_script("SELECT 1;", name="orders", weight=weight)


def test_a_copy_on_the_server_is_the_servers_business():
    assert sql("COPY t TO '/dev/null'; SELECT 'COPY t FROM STDIN';")[0] == "COPY t TO '/dev/null'"


def test_what_errors_show_is_printable():
    with pytest.raises(UsageError) as caught:
        parse_script("\\a\x1b[31mb", name="evil\n\x1b[0mname")
    assert str(caught.value).count("\n") == 1
    assert "\x1b" not in str(caught.value)


def test_a_large_script_is_parsed_in_time_that_grows_with_its_size():
    text = "SELECT " + ", ".join(f"('x'), :scale, $${number}$$" for number in range(20_000)) + ";"
    assert len(commands(text)[0].pieces) == 40_001


def test_the_statements_of_a_setup():
    text = "-- tables\nCREATE TABLE t (x int); /* a */ ;\nINSERT INTO t VALUES (1), (:a);\nVACUUM t"
    assert split_statements(text, origin="setup.sql") == (
        "CREATE TABLE t (x int)",
        "INSERT INTO t VALUES (1), (:a)",
        "VACUUM t",
    )
    with pytest.raises(UsageError, match=r"^setup\.sql, line 2, column 1: there is a meta command"):
        split_statements("SELECT 1;\n\\set x 1", origin="setup.sql")
    with pytest.raises(UsageError, match=r"^setup\.sql, line 2, column 8: there is a NUL character"):
        split_statements("SELECT 1;\nSELECT \0;", origin="setup.sql")
