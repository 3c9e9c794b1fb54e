"""Settings in the words of whoever sets them."""

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.knobs.dialects import (
    MANAGERS,
    Item,
    accepted_by,
    alter_database,
    alter_system,
    configuration_file,
    in_the_words_of,
)
from ml_postgres_optimization.knobs.rendering import parse

ITEMS = (
    Item("work_mem", 65536, "kB", is_sessions_own=True),
    Item("jit", False, is_sessions_own=True),
    Item("checkpoint_timeout", 900, "s"),
    Item("random_page_cost", 1.1, is_sessions_own=True),
    Item("shared_buffers", 16384, "8kB", needs_restart=True),
)


@pytest.mark.parametrize("manager", [*MANAGERS, None, "Neon"])
def test_every_setting_is_named_once_and_what_needs_a_restart_is_told(manager):
    lines = in_the_words_of(manager, ITEMS)
    told = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    assert all(len(re.findall(rf"\b{item.name}\b", told)) == 1 for item in ITEMS)
    assert "shared_buffers" in lines[-1] and lines[-1].startswith("#")
    assert in_the_words_of(manager, ()) == ()


@pytest.mark.parametrize("manager", ["Amazon RDS", "Amazon Aurora"])
def test_amazon_takes_base_units_numbers_for_booleans_and_one_at_a_time(manager):
    text = "\n".join(in_the_words_of(manager, ITEMS))
    assert "ParameterName=work_mem,ParameterValue=65536,ApplyMethod=immediate" in text
    assert "ParameterName=jit,ParameterValue=0,ApplyMethod=immediate" in text
    assert "ParameterName=shared_buffers,ParameterValue=16384,ApplyMethod=pending-reboot" in text
    calls = [shlex.split(line, comments=True) for line in text.replace("\\\n", "").splitlines()]
    given_at_once = [sum(word.startswith("ParameterName=") for word in call) for call in calls if call]
    assert given_at_once == [1] * len(ITEMS), "one that is refused does not take the others along"


def test_cloud_sql_fails_until_the_flags_that_it_would_take_away_are_filled_in():
    lines = in_the_words_of("Google Cloud SQL", ITEMS)
    assert "ALL flags" in lines[0]
    (flags,) = [word for word in shlex.split(lines[2]) if word.startswith("--database-flags=")]
    assert flags.endswith(
        "=EXISTING_FLAGS,work_mem=65536,jit=off,checkpoint_timeout=900,random_page_cost=1.1,shared_buffers=16384"
    )


def test_what_cloud_sql_refuses_does_not_take_the_rest_along():
    wanted = {"effective_cache_size": 98304, "wal_compression": "lz4", "work_mem": 65536}
    taken, reasons = accepted_by("Google Cloud SQL", wanted, 2**30)
    assert taken == {"effective_cache_size": 91750, "wal_compression": "on", "work_mem": 65536}
    assert list(reasons) == ["effective_cache_size"]
    assert accepted_by("Google Cloud SQL", wanted, 2**31)[0]["effective_cache_size"] == 98304
    assert accepted_by("Amazon RDS", wanted, 2**30) == (wanted, {})


def test_patroni_is_told_what_it_takes_from_the_cluster_only():
    lines = in_the_words_of("Patroni", [Item("max_connections", 200, needs_restart=True), *ITEMS])
    assert "overlooks it: max_connections" in "\n".join(lines) and lines[-1].endswith("patronictl restart CLUSTER")


def test_patroni_merges_what_it_is_given_as_one_command():
    lines = [line for line in in_the_words_of("Patroni", ITEMS) if not line.startswith("#")]
    words = shlex.split("\n".join(lines).replace("\\\n", ""))
    assert words[:3] == ["patronictl", "edit-config", "CLUSTER"] and words[3::2] == ["-p"] * len(ITEMS)
    assert words[4::2] == [f'{item.name}="{item.text}"' for item in ITEMS]


def test_a_value_in_yaml_is_a_string_even_where_it_looks_like_a_boolean():
    assert [line.strip() for line in in_the_words_of("CloudNativePG", ITEMS) if "jit" in line] == ["jit: 'off'"]


def test_a_database_takes_only_what_a_session_can_set():
    lines = alter_database(ITEMS, 'a"; DROP')
    assert [line.split(" SET ")[1].split(" ")[0] for line in lines] == ["work_mem", "jit", "random_page_cost"]
    assert all(line.startswith('ALTER DATABASE "a""; DROP" SET ') for line in lines)


@given(st.integers(min_value=64, max_value=2**31 - 1), st.sampled_from(["kB", "8kB", "MB"]))
def test_a_value_means_the_same_in_every_dialect(value, unit):
    item = Item("a_size", value, unit)
    for line in (alter_system([item])[0].rstrip(";"), configuration_file([item])[1]):
        assert parse(line.split("'")[1], "integer", unit) == value
    for manager in ("Amazon RDS", "Google Cloud SQL", "Azure Database for PostgreSQL"):
        assert re.search(rf"\b{value}\b", "\n".join(in_the_words_of(manager, [item])))
