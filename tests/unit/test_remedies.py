"""What is tried because of what a window shows, and what is not searched because the load cannot feel it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rules import GIB, MIB, SSD, STOCK

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, Window
from ml_postgres_optimization.tuning.drafting import Draft, together
from ml_postgres_optimization.tuning.relevance import relevant
from ml_postgres_optimization.tuning.remedies import remedies

MORE = {
    setting.name: setting
    for setting in (
        Setting("commit_delay", 0, "integer", None, "superuser", "default", 0, 100_000),
        Setting("commit_siblings", 5, "integer", None, "user", "default", 0, 1000),
        Setting("checkpoint_timeout", 300, "integer", "s", "sighup", "default", 30, 86400),
        Setting("bgwriter_delay", 200, "integer", "ms", "sighup", "default", 10, 10000),
        Setting("bgwriter_lru_maxpages", 100, "integer", None, "sighup", "default", 0, 1073741823),
    )
}
LIVE = STOCK | MORE
CATALOGUE = load_catalogue().confront(LIVE, 15, SSD)
INITIAL = CATALOGUE.configuration_of(LIVE)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

RATES = {
    "host.cpu_busy_seconds_per_second": (0.0, 8.0),
    "host.disk_read_bytes_per_second": (0.0, 1e9),
    "database.temp_bytes_per_second": (0.0, 1e9),
    "database.read_blocks_per_second": (0.0, 1e6),
    "wal.syncs_per_second": (0.0, 1e4),
    "wal.generated_bytes_per_second": (0.0, 1e9),
    "checkpointer.requested_checkpoints_per_second": (0.0, 1.0),
    "background_writer.backend_written_blocks_per_second": (0.0, 1e5),
}
rates = st.fixed_dictionaries({}, optional={name: st.floats(*bounds) for name, bounds in RATES.items()})
waits = st.fixed_dictionaries({}, optional={name: st.floats(0, 100) for name in ("CPU", "IO", "LWLock", "Client")})


def window(rates=None, waits=None, gauges=None, seconds=None):
    operations = {}
    if seconds is not None:
        times = Histogram.of([seconds] * 10)
        operations = {"read": OperationWindow(times, times)}
    return Window(
        NOON,
        NOON + timedelta(seconds=10),
        INITIAL.id,
        rates=rates or {},
        waits=waits or {},
        gauges=gauges or {},
        operations=operations,
    )


def tried(seen, configuration=INITIAL, catalogue=CATALOGUE):
    """Return what each remedy would set, without those that set nothing."""
    found = [draft.values(configuration) for draft in remedies(seen, INITIAL, SSD, catalogue)]
    return [dict(values) for values in found if values]


CASES = {
    "processors": (
        {"rates": {"host.cpu_busy_seconds_per_second": 7.5}, "waits": {"CPU": 9.0, "Client": 40.0}, "seconds": 0.1},
        [{"max_parallel_workers_per_gather": 0}],
    ),
    "processors left": (
        {"rates": {"host.cpu_busy_seconds_per_second": 7.5}, "waits": {"CPU": 7.0}, "seconds": 0.1},
        [],
    ),
    "short of processors by short statements": (
        {"rates": {"host.cpu_busy_seconds_per_second": 7.5}, "waits": {"CPU": 9.0}, "seconds": 0.005},
        [],
    ),
    "cached": ({"gauges": {"tables.estimated_bytes": 1.0 * GIB}, "seconds": 0.1}, [{"random_page_cost": 1.1}]),
    "cached and looked up": ({"gauges": {"tables.estimated_bytes": 1.0 * GIB}, "seconds": 1e-4}, []),
    "larger than memory": ({"gauges": {"tables.estimated_bytes": 20.0 * GIB}, "seconds": 0.1}, []),
    "spilling": (
        {"rates": {"database.temp_bytes_per_second": 5.0 * MIB}},
        [{"work_mem": 8192}, {"hash_mem_multiplier": 4.0}],
    ),
    "hardly spilling": ({"rates": {"database.temp_bytes_per_second": 1000.0}}, []),
    # 2 sessions in the disk at 100 flushes a second: 20 ms each at most, of which 5 ms is the longest delay
    "flushing": (
        {"rates": {"wal.syncs_per_second": 100.0}, "waits": {"IO": 2.0, "LWLock": 9.0}},
        [{"commit_delay": 5000}],
    ),
    "flushing alone": ({"rates": {"wal.syncs_per_second": 100.0}, "waits": {"IO": 2.0, "Client": 9.0}}, []),
    "flushing fast": ({"rates": {"wal.syncs_per_second": 1e5}, "waits": {"IO": 1.0, "LWLock": 9.0}}, []),
    "checkpoints": (
        {"rates": {"checkpointer.requested_checkpoints_per_second": 0.01}},
        [{"max_wal_size": 4096, "checkpoint_timeout": 900}],
    ),
    "reading": ({"rates": {"host.disk_read_bytes_per_second": 1e8}}, [{"effective_io_concurrency": 200}]),
    "writing": (
        {"rates": {"background_writer.backend_written_blocks_per_second": 500.0}},
        [{"bgwriter_delay": 50, "bgwriter_lru_maxpages": 1000}],
    ),
    "nothing seen": ({}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_each_symptom_has_its_remedy(case):
    seen, expected = CASES[case]
    assert tried(window(**seen)) == expected


@pytest.mark.parametrize(("seconds", "tried_then"), [(2.0, [{"jit": True}]), (0.05, []), (None, [])])
def test_compilation_is_tried_again_where_statements_are_long(seconds, tried_then):
    without = INITIAL.replaced({"jit": False})
    seen = window({"host.cpu_busy_seconds_per_second": 7.9}, seconds=seconds)
    assert [draft.values(without) for draft in remedies(seen, without, SSD, CATALOGUE)] == tried_then


def test_compression_is_given_up_where_processors_are_short():
    compressing = INITIAL.replaced({"wal_compression": "lz4"})
    seen = window({"host.cpu_busy_seconds_per_second": 7.9})
    found = [draft.values(compressing) for draft in remedies(seen, compressing, SSD, CATALOGUE)]
    assert found == [{"wal_compression": "off"}]


@given(rates, waits, st.floats(0, 1e12))
def test_what_is_tried_may_be_tuned_and_lies_in_its_range(rates, waits, data):
    for values in tried(window(rates, waits, {"tables.estimated_bytes": data})):
        for name, value in values.items():
            knob = CATALOGUE.tunable[name]
            if knob.kind in {"integer", "real"}:
                special = value in knob.special_values
                assert special or knob.minimum <= value <= knob.maximum
            assert isinstance(value, {"integer": int, "real": float, "bool": bool, "enum": str}[knob.kind])


def test_what_was_changed_since_is_left_alone():
    seen = window({"database.temp_bytes_per_second": 5.0 * MIB})
    assert tried(seen, INITIAL.replaced({"work_mem": 5000})) == [{"hash_mem_multiplier": 4.0}]


def test_what_may_not_be_tuned_here_is_not_tried():
    seen = window({"database.temp_bytes_per_second": 5.0 * MIB})
    assert tried(seen, catalogue=CATALOGUE.without({"work_mem": "somebody else's"})) == [{"hash_mem_multiplier": 4.0}]


def test_the_first_draft_and_what_symptoms_ask_for_are_tried_together_first():
    # as the rules do, it names all that is in force
    first = Draft.of({**INITIAL, "work_mem": 6000, "jit": False}, "rules", "what the rules say")
    alternative = Draft.of(
        {"jit": False},
        "rules",
        "the half of it",
    )
    seen = window({"database.temp_bytes_per_second": 5.0 * MIB})
    whole, *others = together([first, alternative], [*remedies(seen, INITIAL, SSD, CATALOGUE)])
    assert whole.values(INITIAL) == {"work_mem": 6000, "hash_mem_multiplier": 4.0, "jit": False}
    assert (whole.origin, whole.is_alternative) == ("rules", False)
    assert "5 MB a second go to temporary files" in whole.reason
    assert [draft.values(INITIAL) for draft in others] == [first.values(INITIAL), alternative.values(INITIAL)]
    assert others[0].is_alternative


def test_without_symptoms_drafts_are_as_they_were():
    first = Draft.of({"jit": False}, "rules", "what the rules say")
    assert together([first], []) == (first,)
    assert together([], [first]) == ()


WAL_KNOBS = {"wal_compression", "max_wal_size", "commit_delay", "bgwriter_delay"}
LONG_KNOBS = {"work_mem", "jit", "max_parallel_workers_per_gather"}


def test_a_load_that_cannot_be_seen_into_is_searched_along_all_knobs():
    assert relevant(window(), CATALOGUE, 8) == set(CATALOGUE)


def test_what_the_load_does_not_do_is_not_searched():
    reads = window({"wal.generated_bytes_per_second": 100.0, "database.read_blocks_per_second": 1e4}, seconds=0.5)
    found = relevant(reads, CATALOGUE, 8)
    assert not WAL_KNOBS & found
    assert {*LONG_KNOBS, "effective_io_concurrency", "random_page_cost"} <= found
    writes = window({"wal.generated_bytes_per_second": 1e6, "database.read_blocks_per_second": 0.0}, seconds=0.001)
    found = relevant(writes, CATALOGUE, 8)
    assert found >= WAL_KNOBS
    assert not {*LONG_KNOBS, "effective_io_concurrency"} & found


def test_time_spent_waiting_for_a_processor_makes_no_statement_long():
    seen = window(waits={"CPU": 80.0}, seconds=0.05)
    assert not LONG_KNOBS & relevant(seen, CATALOGUE, 8)
    assert relevant(replace(seen, waits={"CPU": 4.0}), CATALOGUE, 8) >= LONG_KNOBS
