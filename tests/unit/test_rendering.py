"""Values as text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.knobs.rendering import bytes_of, parse, render, rounded, same_value

UNITS = st.sampled_from([None, "kB", "8kB", "MB", "ms", "s", "min"])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (65536, "kB", "64MB"),
        (4096, "kB", "4MB"),
        (1000, "kB", "1000kB"),
        (16384, "8kB", "128MB"),
        (1, "8kB", "8kB"),
        (1024, "MB", "1GB"),
        (300, "s", "5min"),
        (90, "s", "90s"),
        (2.0, "ms", "2ms"),
        (0.1, "ms", "0.1ms"),
        (0, "kB", "0"),
        (-1, "kB", "-1"),
        (1.1, None, "1.1"),
        (100000.0, None, "100000"),
        (True, None, "on"),
        (False, None, "off"),
        ("lz4", None, "lz4"),
    ],
)
def test_a_value_is_written_as_people_do(value, unit, text):
    assert render(value, unit) == text


@pytest.mark.parametrize(
    ("text", "kind", "unit", "value"),
    [
        ("64MB", "integer", "kB", 65536),
        ("1.5GB", "integer", "MB", 1536),
        ("1 GB", "integer", "8kB", 131072),
        ("4096", "integer", "kB", 4096),
        ("-1", "integer", "kB", -1),
        ("5min", "integer", "s", 300),
        ("1h", "integer", "s", 3600),
        ("2500us", "real", "ms", 2.5),
        ("0.9", "real", None, 0.9),
        ("1e2", "integer", None, 100),
        ("of", "bool", None, False),
        ("T", "bool", None, True),
        ("1", "bool", None, True),
        ("PGLZ", "enum", None, "pglz"),
    ],
)
def test_what_postgresql_accepts_is_read(text, kind, unit, value):
    parsed = parse(text, kind, unit)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "unit"),
    [
        ("64mb", "integer", "kB"),
        ("64MB", "integer", "s"),
        ("5min", "integer", "kB"),
        ("64MB", "integer", None),
        ("many", "integer", "kB"),
        ("", "real", None),
        ("o", "bool", None),
        ("", "bool", None),
        ("maybe", "bool", None),
    ],
)
def test_what_postgresql_refuses_is_refused(text, kind, unit):
    with pytest.raises(ValueError):
        parse(text, kind, unit)


@given(st.integers(-1, 2**31 - 1), UNITS)
def test_an_integer_survives_being_written_and_read(value, unit):
    assert parse(render(value, unit), "integer", unit) == value


@given(st.floats(1e-3, 1e9), UNITS)
def test_a_real_survives_being_written_and_read(value, unit):
    assert same_value(parse(render(value, unit), "real", unit), value, "real")


@given(st.floats(-1e12, 1e12))
def test_rounding_twice_is_rounding_once(value):
    once = rounded(value, "real")
    assert rounded(once, "real") == once
    assert same_value(once, value, "real")


@pytest.mark.parametrize(
    ("first", "second", "kind", "same"),
    [
        (1_000_000, 1_000_001, "integer", False),
        (4096, 4096.0, "integer", True),
        (0.1234567, 0.123457, "real", True),
        (0.12345, 0.12346, "real", False),
        (True, 1, "bool", False),
        ("LZ4", "lz4", "enum", True),
        ("on", True, "enum", False),
        (None, None, "integer", True),
        (None, 0, "integer", False),
    ],
)
def test_values_are_compared_as_the_server_does(first, second, kind, same):
    assert same_value(first, second, kind) is same


def test_memory_is_counted_in_bytes():
    assert bytes_of(16_384, "8kB") == 128 << 20
    with pytest.raises(ValueError, match="no unit of memory"):
        bytes_of(1, "ms")
    with pytest.raises(ValueError, match="no unit of PostgreSQL"):
        bytes_of(1, "parsec")
