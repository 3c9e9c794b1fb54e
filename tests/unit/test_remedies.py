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
from ml_postgres_optimization.tuning.proposing.drafting import Draft, together
from ml_postgres_optimization.tuning.proposing.relevance import Observed, relevant
from ml_postgres_optimization.tuning.proposing.remedies import remedies

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
    "database.active_seconds_per_second": (0.0, 100.0),
    "wal.sync_seconds_per_second": (0.0, 1.0),
    "host.disk_read_bytes_per_second": (0.0, 1e9),
    "database.temp_bytes_per_second": (0.0, 1e9),
    "database.read_blocks_per_second": (0.0, 1e6),
    "wal.syncs_per_second": (0.0, 1e4),
    "database.commits_per_second": (0.0, 1e5),
    "database.idle_in_transaction_seconds_per_second": (0.0, 100.0),
    "wal.generated_bytes_per_second": (0.0, 1e9),
    "background_writer.stopped_rounds_per_second": (0.0, 5.0),
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


def tried(seen, catalogue=CATALOGUE):
    """Return what each remedy would set."""
    return [dict(draft.values(INITIAL)) for draft in remedies(Observed(seen, SSD), INITIAL, catalogue)]


BUSY = {"CPU": 7.0}
CASES = {
    "processors": (
        {"rates": {"database.active_seconds_per_second": 9.0}, "waits": {"CPU": 9.0, "Client": 40.0}, "seconds": 0.1},
        [{"max_parallel_workers_per_gather": 0}],
    ),
    "one session and its workers": (
        {"rates": {"database.active_seconds_per_second": 1.0}, "waits": {"CPU": 9.0}, "seconds": 0.1},
        [],
    ),
    "short of processors by short statements": (
        {"rates": {"database.active_seconds_per_second": 9.0}, "waits": {"CPU": 9.0}, "seconds": 0.005},
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
    # 1 s of flushing in a second at 200 flushes: 5 ms each
    "flushes that are timed": (
        {
            "rates": {
                "wal.syncs_per_second": 200.0,
                "wal.sync_seconds_per_second": 1.0,
                "database.active_seconds_per_second": 11.0,
            }
        },
        [{"commit_delay": 2500}],
    ),
    # 2 sessions in the disk at 1,000 flushes a second: 2 ms each
    "flushes that sessions wait for": (
        {
            "rates": {"wal.syncs_per_second": 1000.0, "database.active_seconds_per_second": 11.0},
            "waits": {"IO": 2.0, "LWLock": 9.0},
        },
        [{"commit_delay": 1000}],
    ),
    # most clients think between the statements of their transactions
    "flushes by the thousands, each for two commits": (
        {
            "rates": {
                "wal.syncs_per_second": 2000.0,
                "database.commits_per_second": 4400.0,
                "database.active_seconds_per_second": 6.0,
                "database.idle_in_transaction_seconds_per_second": 20.0,
                "database.read_blocks_per_second": 5000.0,
            },
        },
        [{"commit_delay": 500}],
    ),
    "flushes that are shared already": (
        {
            "rates": {
                "wal.syncs_per_second": 800.0,
                "database.commits_per_second": 4400.0,
                "database.active_seconds_per_second": 26.0,
            },
        },
        [],
    ),
    "sessions that wait for reads": (
        {
            "rates": {
                "wal.syncs_per_second": 60.0,
                "database.active_seconds_per_second": 11.0,
                "database.read_blocks_per_second": 5000.0,
            },
            "waits": {"IO": 10.0},
        },
        [],
    ),
    "flushing alone": (
        {
            "rates": {"wal.syncs_per_second": 100.0, "database.active_seconds_per_second": 2.0},
            "waits": {"IO": 2.0, "Client": 9.0},
        },
        [],
    ),
    # 300 s of 4 MB are 1.2 GB, where a checkpoint begins at 1 GB / 1.9
    "forced checkpoints": ({"rates": {"wal.generated_bytes_per_second": 4.0 * MIB}}, [{"max_wal_size": 4096}]),
    "timed checkpoints": ({"rates": {"wal.generated_bytes_per_second": 1.0 * MIB}}, []),
    "reading": ({"rates": {"host.disk_read_bytes_per_second": 1e8}}, [{"effective_io_concurrency": 200}]),
    "writing": (
        {"rates": {"background_writer.stopped_rounds_per_second": 0.2}},
        [{"bgwriter_lru_maxpages": 1000}],
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
    seen = window(waits=BUSY, seconds=seconds)
    assert [draft.values(without) for draft in remedies(Observed(seen, SSD), without, CATALOGUE)] == tried_then


@pytest.mark.parametrize(("major", "on", "off"), [(15, "lz4", "off"), (14, True, False)])
def test_compression_is_given_up_where_processors_are_short(major, on, off):
    setting = LIVE["wal_compression"]
    if major == 14:
        setting = replace(setting, kind="bool", value=False, enumvals=())
    live = LIVE | {"wal_compression": setting}
    catalogue = load_catalogue().confront(live, major, SSD)
    compressing = catalogue.configuration_of(live).replaced({"wal_compression": on})
    seen = window({"wal.generated_bytes_per_second": 1.5 * MIB}, BUSY)
    (draft,) = [*remedies(Observed(seen, SSD), compressing, catalogue)]
    assert draft.values(compressing) == {"wal_compression": off}
    assert not [*remedies(Observed(seen, SSD), compressing.replaced({"wal_compression": off}), catalogue)]


def test_what_is_there_already_is_not_turned_round():
    most = {"work_mem": 2 * 1024 * 1024, "max_wal_size": 1024 * 1024, "effective_io_concurrency": 500}
    under = INITIAL.replaced({**most, "bgwriter_lru_maxpages": 4000})
    symptoms = {
        "database.temp_bytes_per_second": 5.0 * MIB,
        "wal.generated_bytes_per_second": 1e11,
        "host.disk_read_bytes_per_second": 1e8,
        "background_writer.stopped_rounds_per_second": 1.0,
    }
    found = [draft.values(under) for draft in remedies(Observed(window(symptoms), SSD), under, CATALOGUE)]
    assert found == [{"hash_mem_multiplier": 4.0}]


def test_processors_that_nobody_can_count_are_not_short():
    elsewhere = replace(SSD, is_local=False, cpus=1.0)
    seen = window({"database.active_seconds_per_second": 20.0}, {"CPU": 20.0}, seconds=0.15)
    assert not [*remedies(Observed(seen, elsewhere), INITIAL, CATALOGUE)]
    assert relevant(Observed(seen, elsewhere), CATALOGUE) >= LONG_KNOBS


@given(rates, waits, st.floats(0, 1e12), st.floats(1e-5, 100))
def test_what_is_tried_may_be_tuned_and_lies_in_its_range(rates, waits, data, seconds):
    for values in tried(window(rates, waits, {"tables.estimated_bytes": data}, seconds)):
        for name, value in values.items():
            knob = CATALOGUE.tunable[name]
            if knob.kind in {"integer", "real"}:
                special = value in knob.special_values
                assert special or knob.minimum <= value <= knob.maximum
            assert isinstance(value, {"integer": int, "real": float, "bool": bool, "enum": str}[knob.kind])


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
    whole, *others = together([first, alternative], [*remedies(Observed(seen, SSD), INITIAL, CATALOGUE)])
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
    assert relevant(Observed(window(), SSD), CATALOGUE) == set(CATALOGUE)


def test_what_the_load_does_not_do_is_not_searched():
    reads = window({"wal.generated_bytes_per_second": 100.0, "database.read_blocks_per_second": 1e4}, seconds=0.5)
    found = relevant(Observed(reads, SSD), CATALOGUE)
    assert not WAL_KNOBS & found
    assert {*LONG_KNOBS, "effective_io_concurrency", "random_page_cost"} <= found
    writes = window({"wal.generated_bytes_per_second": 1e6, "database.read_blocks_per_second": 0.0}, seconds=0.001)
    found = relevant(Observed(writes, SSD), CATALOGUE)
    assert found >= WAL_KNOBS
    assert not {*LONG_KNOBS, "effective_io_concurrency"} & found


def test_time_spent_waiting_for_a_processor_makes_no_statement_long():
    seen = window(waits={"CPU": 80.0}, seconds=0.05)
    assert not LONG_KNOBS & relevant(Observed(seen, SSD), CATALOGUE)
    assert relevant(Observed(replace(seen, waits={"CPU": 4.0}), SSD), CATALOGUE) >= LONG_KNOBS
