r"""The laws of scripts: what holds for every text, every number and every seed."""

import operator
import pickle
import re
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script import parse_script, split_statements
from ml_postgres_optimization.workload.script.expression import Scope, parse_expression
from ml_postgres_optimization.workload.script.source import Source

LEAST, MOST = -(2**63), 2**63 - 1
INTEGERS = st.integers(LEAST, MOST) | st.integers(-10, 10) | st.sampled_from([LEAST, LEAST + 1, MOST - 1, MOST])
FRAGMENTS = st.sampled_from(
    [
        "SELECT ",
        "BEGIN",
        "END",
        ";",
        "\n",
        "\\",
        "\\;",
        "\\set x ",
        "\\if ",
        "\\elif ",
        "\\else",
        "\\endif",
        "\\gset ",
        "\\aset p_",
        "\\sleep ",
        "'",
        '"',
        "E'",
        "$$",
        "$a$",
        "/*",
        "*/",
        "--",
        "(",
        ")",
        "[",
        "]",
        ":",
        "::",
        ":x",
        ":scale",
        "1",
        "1.5e",
        " + ",
        "-",
        "random(1,",
        "case ",
        "when ",
        "then ",
        "create function ",
        "begin ",
        "\r\n",
        "\0",
        "%",
        "%s",
        "é",
        " ",
        "\ud800",
        "copy ",
        "stdin",
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=5), max_size=30).map("".join)


def evaluate(text, seed=1, **variables):
    return parse_expression(Source("law", text), 0).expression.evaluate(Scope(variables, Random(seed)))


def outcome(text, **variables):
    try:
        return evaluate(text, **variables)
    except UsageError:
        return UsageError


@given(TEXTS)
@example("\\if 1\n" * 30)
@example("(" * 3000)
@example("\\set x " + "(" * 3000)
@example("[" * 3000 + "'")
def test_a_text_is_a_script_or_is_refused(text):
    try:
        script = parse_script(text, name="law")
    except UsageError as error:
        assert len(str(error).splitlines()) == 2
    else:
        assert script.commands
        assert pickle.loads(pickle.dumps(script)) == script


@given(TEXTS)
def test_an_expression_has_a_value_or_is_refused(text):
    value = outcome(text, x=5, scale=1)
    assert value is UsageError or value is None or type(value) in {int, float, bool}


def c_division(left, right):
    """Divide as C does."""
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": c_division,
    "%": lambda left, right: left - right * c_division(left, right),
    "&": operator.and_,
    "|": operator.or_,
    "#": operator.xor,
}


@given(INTEGERS, INTEGERS, st.sampled_from([*ARITHMETIC]))
@example(LEAST, -1, "/")
@example(LEAST, -1, "%")
def test_an_integer_is_exact_or_refused(left, right, symbol):
    if symbol in "/%" and right == 0:
        expected = UsageError
    else:
        exact = ARITHMETIC[symbol](left, right)
        expected = exact if LEAST <= exact <= MOST else UsageError
    assert outcome(f":a {symbol} :b", a=left, b=right) == expected


@given(INTEGERS)
def test_a_literal_is_itself(number):
    assert outcome(str(number)) == number


@given(INTEGERS, st.integers(0, 63))
def test_a_shift_to_the_left_keeps_the_lowest_64_bits(number, bits):
    shifted = evaluate(":a << :b", a=number, b=bits)
    assert LEAST <= shifted <= MOST
    assert (shifted - (number << bits)) % 2**64 == 0


@given(INTEGERS, INTEGERS, st.integers())
def test_random_is_in_its_range(one, other, seed):
    low, high = sorted((one, other))
    value = outcome("random(:a, :b)", seed=seed, a=low, b=high)
    assert value is UsageError if high - low >= MOST else low <= value <= high


@given(st.integers(-1000, 1000), st.integers(0, 3), st.integers(0, 2**32))
def test_random_reaches_both_ends(low, width, seed):
    rng, tree = Random(seed), parse_expression(Source("law", "random(:a, :b)"), 0).expression
    scope = Scope({"a": low, "b": low + width}, rng)
    assert {tree.evaluate(scope) for _ in range(200)} == {*range(low, low + width + 1)}


DRAWS = (
    "random(1, 1000000)",
    "random_gaussian(1, 1000000, 3)",
    "random_exponential(1, 1000000, 3)",
    "random_zipfian(1, 1000000, 1.1)",
)


@given(st.integers(0, 2**63), st.sampled_from(DRAWS))
def test_a_seed_repeats(seed, text):
    assert evaluate(text, seed=seed) == evaluate(text, seed=seed)


@given(st.integers(1, 10**6), st.integers(), st.integers(), st.integers(LEAST, MOST))
def test_permute_keeps_values_apart(size, one, other, seed):
    first, second = one % size, other % size
    images = [evaluate("permute(:v, :n, :s)", v=value, n=size, s=seed) for value in (first, second)]
    assert all(0 <= image < size for image in images)
    assert (images[0] == images[1]) == (first == second)


# Python's operators of the same meaning have the same order among these, but for the bits, which Python divides
# into three levels; they stand in parentheses of their own.
LEAVES = st.integers(0, 9).map(str)


def _grown(parts):
    pair = st.tuples(parts, parts)
    return st.one_of(
        st.tuples(pair, st.sampled_from("+-*")).map(lambda grown: f"{grown[0][0]} {grown[1]} {grown[0][1]}"),
        pair.map(lambda grown: f"({grown[0]} | {grown[1]})"),
        parts.map(lambda part: f"({part})"),
        parts.map(lambda part: f"- {part}"),
        pair.map(lambda grown: f"case when {grown[0]} < {grown[1]} then 1 else 0 end"),
    )


TREES = st.recursive(LEAVES, _grown, max_leaves=12)


def pythons(text):
    """Return the same expression in Python."""
    case = re.compile(r"case when ((?:(?!case|end).)*?) then 1 else 0 end")
    while case.search(text):
        text = case.sub(r"int(\1)", text)
    return text


@given(TREES)
@example("2 - 3 - 4 * 2 + 1")
@example("- 2 * 3 - - 1")
def test_precedence_is_that_of_arithmetic(text):
    assert evaluate(text) == eval(pythons(text), {"int": int, "__builtins__": {}})


@pytest.mark.parametrize("loose", ["or", "and", "=", "|", "+", "*"])
@pytest.mark.parametrize("tight", ["or", "and", "=", "|", "+", "*"])
def test_the_order_of_operators(loose, tight):
    """Each binds looser than those behind it in the list, whichever stands first."""
    order = ["or", "and", "=", "|", "+", "*"]
    if order.index(loose) < order.index(tight):
        for text, same in (
            (f"1 {loose} 2 {tight} 3", f"1 {loose} (2 {tight} 3)"),
            (f"1 {tight} 2 {loose} 3", f"(1 {tight} 2) {loose} 3"),
        ):
            trees = [parse_expression(Source("law", each), 0).expression for each in (text, same)]
            assert trees[0] == trees[1]


STATEMENTS = st.lists(
    st.sampled_from(
        [
            "SELECT 1",
            "SELECT ';'",
            "SELECT $$;$$",
            "SELECT E'\\';'",
            'SELECT ";"',
            "INSERT INTO t VALUES (1, 'a''b')",
            "SELECT (1 /* ; */ + 2)",
            "CREATE RULE r AS ON UPDATE TO t DO (SELECT 1; SELECT 2)",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
            "SELECT x::int, v[1:2] FROM t -- ; '\n",
        ]
    ),
    max_size=8,
)
GAPS = st.sampled_from(["", " ", "\n", "-- ; ' comment\n", "/* ; ' /* nested */ */", ";", "\r\n\t"])


def squeezed(text):
    """Return a text without what stands between statements."""
    return re.sub(r"/\* ; ' /\* nested \*/ \*/|-- ; ' comment\n|[\s;]", "", text)


@given(STATEMENTS, st.lists(GAPS, min_size=9, max_size=9))
def test_statements_that_are_split_and_joined_are_the_text(statements, gaps):
    text = "".join(f"{gap}{statement};" for gap, statement in zip(gaps, statements, strict=False)) + gaps[-1]
    split = split_statements(text, origin="law")
    assert len(split) == len(statements)
    assert squeezed(";".join(split)) == squeezed(text)
    assert split_statements("\n;".join(split), origin="law") == split
