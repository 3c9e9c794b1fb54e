"""The expressions of scripts: every value and every refusal in the tables is what pgbench says too."""

import math
import pickle
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.expression import Scope, parse_expression, read, shown
from ml_postgres_optimization.workload.script.source import Source

VARIABLES = {"scale": 1, "client_id": 0, "default_seed": 5, "i": 42, "d": 2.5, "b": True, "n": None, "word": "wood"}
KINDS = {int: "int", float: "double", bool: "boolean"}

# Values from pgbench 15, by debug(); pgbench 18 says the same.
VALUES = [
    ("1 + 2 * 3", "int 7"),
    ("(1 + 2) * 3", "int 9"),
    ("7 / 2", "int 3"),
    ("-7 / 2", "int -3"),
    ("7 / -2", "int -3"),
    ("-7 % 3", "int -1"),
    ("7 % -3", "int 1"),
    ("- 7 % 3", "int -1"),
    ("5.7 % 2", "int 0"),
    ("mod(-7, 3)", "int -1"),
    ("mod(7.5, 2)", "int 0"),
    ("2 - 3 - 4", "int -5"),
    ("100 / 10 / 2", "int 5"),
    ("- -5", "int 5"),
    ("-9223372036854775808", "int -9223372036854775808"),
    ("9223372036854775807", "int 9223372036854775807"),
    ("-9223372036854775808 % -1", "int 0"),
    ("1.0 / 0", "double Infinity"),
    ("-1.0 / 0", "double -Infinity"),
    ("0.0 / 0", "double NaN"),
    ("1.0 / 3", "double 0.333333333333333"),
    ("1e10", "double 10000000000"),
    ("1e15", "double 1e+15"),
    ("1e16", "double 1e+16"),
    ("1.5e300 * 1e300", "double Infinity"),
    ("1e-5", "double 1e-05"),
    (".5", "double 0.5"),
    ("1.", "double 1"),
    ("0.1 + 0.2", "double 0.3"),
    ("007", "int 7"),
    ("1 = 1.0", "boolean true"),
    ("1 <> 2", "boolean true"),
    ("1 != 2", "boolean true"),
    ("1 < 2", "boolean true"),
    ("2 <= 2", "boolean true"),
    ("3 > 2", "boolean true"),
    ("2 >= 3", "boolean false"),
    ("not true", "boolean false"),
    ("not false or true", "boolean true"),
    ("not 1 = 2", "boolean true"),
    ("not null is null", "boolean false"),
    ("null is null", "boolean true"),
    ("null isnull", "boolean true"),
    ("1 notnull", "boolean true"),
    ("1 is null", "boolean false"),
    ("1 is not null", "boolean true"),
    ("1 is true", "boolean false"),
    ("true is true", "boolean true"),
    ("true is not false", "boolean true"),
    ("0 is false", "boolean false"),
    ("true is null is false", "boolean true"),
    ("1 = 1 is true", "boolean true"),
    ("true and null", "null"),
    ("null and false", "null"),
    ("false and null", "boolean false"),
    ("true or null", "boolean true"),
    ("null or true", "null"),
    ("false or null", "null"),
    ("false and 1", "boolean false"),
    ("false and 1/0", "boolean false"),
    ("true or 1/0 > 0", "boolean true"),
    ("true or false and false", "boolean true"),
    ("1 | 2 & 3", "int 3"),
    ("6 & 3 | 8", "int 10"),
    ("1 << 3 + 1", "int 16"),
    ("1 << 63", "int -9223372036854775808"),
    ("1 << 64", "int 1"),
    ("1 << 65", "int 2"),
    ("-1 >> 1", "int -1"),
    ("-8 >> 1", "int -4"),
    ("1 >> 64", "int 1"),
    ("1 << -1", "int -9223372036854775808"),
    ("5 # 3", "int 6"),
    ("~ 5", "int -6"),
    ("~ 1 + 2", "int -4"),
    ("~1 | 2", "int -2"),
    ("2 * ~ 1 + 3", "int -10"),
    ("2 * - 3", "int -6"),
    ("- 2 * 3", "int -6"),
    ("1.5 & 3", "int 2"),
    ("2.5 | 0", "int 2"),
    ("3.5 | 0", "int 4"),
    ("case when true then 1 end", "int 1"),
    ("case when false then 1 end", "null"),
    ("case when 0 then 1 else 2 end", "int 2"),
    ("case when 0.0 then 1 when 2 then 3 else 4 end", "int 3"),
    ("case when null then 1 else 2 end", "int 2"),
    ("case when 1 > 2 then 1 when 2 > 1 then 2.5 end", "double 2.5"),
    ("case when true then 1 else 1/0 end", "int 1"),
    ("abs(-5)", "int 5"),
    ("abs(-5.5)", "double 5.5"),
    ("abs(-9223372036854775807)", "int 9223372036854775807"),
    ("abs(null)", "null"),
    ("double(3)", "double 3"),
    ("double(5432)", "double 5432"),
    ("exp(1)", "double 2.71828182845905"),
    ("exp(0)", "double 1"),
    ("exp(1000)", "double Infinity"),
    ("greatest(5, 4, 3, 2)", "int 5"),
    ("greatest(5, 4.5)", "double 5"),
    ("greatest(1, null)", "null"),
    ("least(5, 4, 3, 2.1)", "double 2.1"),
    ("least(3)", "int 3"),
    ("int(5.4 + 3.8)", "int 9"),
    ("int(2.5)", "int 2"),
    ("int(3.5)", "int 4"),
    ("int(-2.5)", "int -2"),
    ("int(-9223372036854775808.0)", "int -9223372036854775808"),
    ("int(null)", "null"),
    ("ln(2.718281828459045)", "double 1"),
    ("ln(0)", "double -Infinity"),
    ("ln(-1)", "double NaN"),
    ("pi()", "double 3.14159265358979"),
    ("pow(2, 10)", "double 1024"),
    ("power(2.0, 0.5)", "double 1.4142135623731"),
    ("pow(2, 2000)", "double Infinity"),
    ("pow(-2, 2001)", "double -Infinity"),
    ("pow(0, -1)", "double Infinity"),
    ("pow(-8, 0.5)", "double NaN"),
    ("pow(0, 0)", "double 1"),
    ("sqrt(2)", "double 1.4142135623731"),
    ("sqrt(-1)", "double NaN"),
    ("hash(10, 5432)", "int -5817877081768721676"),
    ("hash(10)", "int 5862924560876750601"),
    ("hash(-1)", "int -5076451673284178055"),
    ("hash(10.4)", "int 5862924560876750601"),
    ("hash_murmur2(10, 5432)", "int -5817877081768721676"),
    ("hash_murmur2(9223372036854775807, -1)", "int -7449049946749928351"),
    ("hash_fnv1a(10, 5432)", "int -7793829335365542153"),
    ("hash_fnv1a(10)", "int 4876795174170569834"),
    ("hash_fnv1a(-1, -9223372036854775808)", "int 933681686290597949"),
    ("hash(null)", "null"),
    ("permute(0, 4)", "int 0"),
    ("permute(1, 4)", "int 3"),
    ("permute(2, 4)", "int 2"),
    ("permute(3, 4)", "int 1"),
    ("permute(0, 1)", "int 0"),
    ("permute(5, 2, 77)", "int 1"),
    ("permute(-1, 10, 1)", "int 3"),
    ("permute(123456, 1000000, 5432)", "int 450791"),
    ("permute(9223372036854775806, 9223372036854775807, 5432)", "int 6490954910556206994"),
    ("permute(12, 100)", "int 24"),
    ("permute(0, 3, 9)", "int 0"),
    ("permute(1, 3, 9)", "int 1"),
    ("permute(2, 3, 9)", "int 2"),
    ("random(5, 5)", "int 5"),
    ("random(null, 5)", "null"),
    ("random_gaussian(1, 1, 2.0)", "int 1"),
    ("random_exponential(3, 3, 1)", "int 3"),
    ("random_zipfian(4, 4, 1.5)", "int 4"),
    (":i + 1", "int 43"),
    (":d * 2", "double 5"),
    (":scale", "int 1"),
    (":client_id", "int 0"),
    (":i % 5 = 2", "boolean true"),
    ("1 --2", "int 3"),
    ("TRUE", "boolean true"),
    ("True and NOT FALSE", "boolean true"),
    ("NULL", "null"),
    ("random ( 3 , 3 )", "int 3"),
    ("ABS(-2)", "int 2"),
    ("not not true", "boolean true"),
    (":n is null", "boolean true"),
    (":b and true", "boolean true"),
    (":n + 1", "null"),
    ("1 / 2.0", "double 0.5"),
    ("3 = 3 and 4 = 4", "boolean true"),
    ("1 + 2 = 3 and 2 * 2 = 4", "boolean true"),
    ("1 - 2 + 3", "int 2"),
    ("2 * 3 % 4", "int 2"),
    ("10 % 4 * 3", "int 6"),
    ("1 | 4 # 1", "int 4"),
    ("3 & 5 # 1", "int 0"),
    ("1 < 2 and 2 < 3 or false", "boolean true"),
    ("0.1", "double 0.1"),
    ("123456789012345678", "int 123456789012345678"),
    ("1234567890.123456789", "double 1234567890.12346"),
    ("1e100", "double 1e+100"),
    ("100000 * 0.1", "double 10000"),
    ("1.0", "double 1"),
    ("-0.0", "double 0"),
    ("0.0 * -1", "double -0"),
    ("case when 1 then case when 0 then 2 else 3 end else 4 end", "int 3"),
    ("1 - 1 isnull", "boolean false"),
    ("1 is not true", "boolean true"),
    ("null is not true", "boolean true"),
    ("1.0 = 1", "boolean true"),
    ("1 =+ 2", "boolean false"),
    ("5 % 3 - -2", "int 4"),
]

# Neither pgbench 15 nor 18 evaluates these.
REFUSED = [
    "9223372036854775808",
    "9223372036854775807 + 1",
    "-9223372036854775808 - 1",
    "9223372036854775807 * 2",
    "-9223372036854775808 / -1",
    "1 / 0",
    "1 % 0",
    "1e400",
    "true = true",
    "true + 1",
    "1 + true",
    "not 1",
    "true and 1",
    "1 and true",
    "case 1 when 1 then 2 end",
    "double(true)",
    "least()",
    "greatest(true, false)",
    "int(1e19)",
    "int(9223372036854775807.0)",
    "int(true)",
    "permute(1, 0)",
    "permute(1, -5)",
    "random(6, 5)",
    "random(0, 9223372036854775807)",
    "random_gaussian(1, 9, 1.9)",
    "random_exponential(1, 9, 0)",
    "random_zipfian(1, 9, 1)",
    "random_zipfian(1, 9, 1001)",
    "1 = 2 = 3",
    "1 < 2 < 3",
    "1 +",
    "(1",
    "1)",
    "foo(1)",
    "abs(1, 2)",
    "pi(1)",
    "1 2",
    "1 -- comment",
    "nosuch",
    "1abc",
    "1.5.2",
    "1..2",
    "1e",
    "1 + not true",
    "1 = not true",
    "1 or true",
    "-2147483649 * 4294967296",
    "1 in (1)",
    "1 ** 2",
]


def evaluate(text, *, seed=1, **variables):
    tree = pickle.loads(pickle.dumps(parse_expression(Source("test", text), 0).expression))
    return tree.evaluate(Scope({**VARIABLES, **variables}, Random(seed)))


def told(value):
    """Return a value as debug() of pgbench prints it."""
    return "null" if value is None else f"{KINDS[type(value)]} {shown(value)}"


@pytest.mark.parametrize(("text", "expected"), VALUES)
def test_a_value_is_that_of_pgbench(text, expected):
    assert told(evaluate(text)) == expected


@pytest.mark.parametrize("text", REFUSED)
def test_what_pgbench_refuses_is_refused(text):
    with pytest.raises(UsageError):
        evaluate(text)


def test_debug_is_its_argument():
    assert evaluate("debug(7) + 1") == 8


@pytest.mark.parametrize("text", ["abs(-9223372036854775808)", "abs(true)"])
def test_where_pgbench_takes_leave_of_arithmetic_it_is_refused(text):
    """Version 15 and 18 answer with a negative number and with 4.9e-324."""
    with pytest.raises(UsageError):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", None),
        ("NULL", None),
        ("t", True),
        ("yes", True),
        ("on", True),
        ("f", False),
        ("n", False),
        ("of", False),
        ("12", 12),
        (" -12", -12),
        ("+7", 7),
        ("1.50", 1.5),
        (".5e1", 5.0),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_text_of_a_result_is_read_as_pgbench_reads_it(text, expected):
    value = read(text)
    assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize("text", ["", "wood", "9223372036854775808", "9" * 5000, "1e999", "1 2", "0x10", "o", "1_0"])
def test_text_that_is_no_value_cannot_be_computed_with(text):
    with pytest.raises(UsageError):
        read(text)


@pytest.mark.parametrize(
    ("text", "what", "column"),
    [
        ("1 + * 2", "an expression is expected, not '*'", 5),
        ("1 +", "an expression is expected, not the end of the line", 4),
        ("(1", "\\) is expected, not the end of the line", 3),
        ("foo(1)", "there is no function 'foo'", 1),
        ("abs(1, 2)", "abs is called with 2 arguments", 1),
        ("1 < 2 < 3", "comparisons cannot be chained, not '<'", 7),
        ("1 ? 2", "'\\?' belongs to no expression", 3),
        ("9223372036854775808", "9223372036854775808 is out of range", 1),
        ("1 -- one", "there is no function 'one'", 6),
        ("case when 1 then 2", "END is expected", 19),
        ("case 1 end", "WHEN is expected", 6),
        ("1 end", "an operator or the end of the line is expected", 3),
    ],
)
def test_an_error_says_where(text, what, column):
    with pytest.raises(UsageError, match=rf"^test, line 1, column {column}: {what}"):
        parse_expression(Source("test", text), 0)


@pytest.mark.parametrize("text", ["(" * 5000 + "1", "-" * 5000 + "1", "1" + "+1" * 5000, "not " * 5000 + "true"])
def test_depth_is_bounded(text):
    with pytest.raises(UsageError, match="more than 60 levels deep"):
        parse_expression(Source("test", text), 0)


def test_the_deepest_expression_that_is_allowed_pickles_and_evaluates():
    text = "0" + "".join(f" + {number}" for number in range(1, 59))
    assert evaluate(f"abs({text})") == sum(range(59))
    assert evaluate("(" * 59 + "7" + ")" * 59) == 7


def test_a_backslash_continues_the_line():
    assert evaluate("1 \\\n + 1") == 2
    assert evaluate("1 \\\r\n + 1") == 2
    parsed = parse_expression(Source("test", "1\n + 1"), 0)
    assert (parsed.end, parsed.expression.evaluate(Scope({}, Random(1)))) == (2, 1)


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(UsageError, match="the variable :nosuch is not set"):
        evaluate(":nosuch + 1")


def test_text_variables_take_part():
    assert evaluate(":x + 1", x="41") == 42
    with pytest.raises(UsageError, match="'wood' is no value"):
        evaluate(":word + 1")


def shares(text, draws=40_000):
    """Return how often each value comes."""
    tree, scope = parse_expression(Source("test", text), 0).expression, Scope(VARIABLES, Random(7))
    counted = Counter(tree.evaluate(scope) for _ in range(draws))
    return {value: count / draws for value, count in counted.items()}


def assert_close(measured, expected, draws=40_000):
    """Within five standard errors each, which chance exceeds once in 1.7 million."""
    assert measured.keys() <= expected.keys()
    for value, share in expected.items():
        assert abs(measured.get(value, 0.0) - share) <= 5 * math.sqrt(share * (1 - share) / draws) + 1e-12, value


def test_random_is_uniform():
    assert_close(shares("random(-2, 4)"), dict.fromkeys(range(-2, 5), 1 / 7))


@pytest.mark.parametrize("parameter", [1.001, 1.2, 2.0, 5.0, 1000.0])
def test_random_zipfian_follows_its_law(parameter):
    weights = [rank**-parameter for rank in range(1, 21)]
    expected = {rank + 9: weight / sum(weights) for rank, weight in enumerate(weights, 1)}
    assert_close(shares(f"random_zipfian(10, 29, {parameter})"), expected)


@pytest.mark.parametrize("parameter", [0.1, 1.0, 10.0])
def test_random_exponential_follows_its_law(parameter):
    """The documented density: f(x) = exp(-parameter * (x - min) / (max - min + 1)) / (1 - exp(-parameter))."""
    edges = [math.exp(-parameter * step / 8) for step in range(9)]
    expected = {1 + step: (edges[step] - edges[step + 1]) / (1 - edges[8]) for step in range(8)}
    assert_close(shares(f"random_exponential(1, 8, {parameter})"), expected)


@pytest.mark.parametrize("parameter", [2.0, 5.0])
def test_random_gaussian_follows_its_law(parameter):
    """The documented density: PHI(2.0 * parameter * (x - mu) / (max - min + 1)) / (2.0 * PHI(parameter) - 1)."""

    def below(step):
        return 0.5 * (1 + math.erf((2 * step / 8 - 1) * parameter / math.sqrt(2)))

    expected = {1 + step: (below(step + 1) - below(step)) / (below(8) - below(0)) for step in range(8)}
    assert_close(shares(f"random_gaussian(1, 8, {parameter})"), expected)


@pytest.mark.parametrize(
    "text",
    [
        "random(-4611686018427387903, 4611686018427387903)",
        "random_zipfian(1, 9223372036854775806, 1.001)",
        "random_zipfian(1, 9223372036854775806, 2.5)",
        "random_zipfian(1, 9223372036854775806, 1000)",
        "random_gaussian(-4611686018427387903, 4611686018427387903, 2)",
        "random_exponential(1, 9223372036854775806, 0.000000000000000000001)",
        "random_exponential(1, 9223372036854775806, 1e300)",
        "random_gaussian(1, 10, 1e308)",
    ],
)
def test_draws_stay_in_the_widest_ranges(text):
    tree, scope = parse_expression(Source("test", text), 0).expression, Scope(VARIABLES, Random(3))
    assert all(-4611686018427387903 <= tree.evaluate(scope) < 2**63 for _ in range(500))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 100, 1000])
def test_permute_is_a_permutation(size):
    assert sorted(evaluate(f"permute({number}, {size}, 3)") for number in range(size)) == [*range(size)]


def test_every_function_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text()
    with pytest.raises(UsageError) as caught:
        evaluate("nosuch(1)")
    functions = caught.value.next_step.removeprefix("There are ").removesuffix(".").split(", ")
    assert len(functions) == 21
    assert [name for name in functions if f"`{name}(" not in page] == []
