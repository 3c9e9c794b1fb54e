"""The prediction of peak memory, by hand and against what the server says of itself."""

import pytest

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.knob import Scope
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.memory import MEMORY_RULES, allowed_bytes, predicted_peak_bytes

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CATALOGUE = load_catalogue()


def test_the_parts_add_up_as_the_rule_says():
    forecast = predicted_peak_bytes(
        {
            "work_mem": 4096,
            "hash_mem_multiplier": 2.0,
            "max_parallel_workers_per_gather": 2,
            "max_parallel_workers": 8,
            "max_worker_processes": 8,
            "maintenance_work_mem": 65536,
            "autovacuum_work_mem": -1,
            "autovacuum_max_workers": 3,
            "temp_buffers": 1024,
        },
        connections=100,
        active=10,
    )
    assert forecast.parts["connections"] == 100 * 5 * MIB
    assert forecast.parts["temporary"] == 100 * 8 * MIB
    # 10 sessions and the 8 parallel workers that there are for all; a sort, and two hashes of twice work_mem
    assert forecast.parts["queries"] == 18 * (1 + 2 * 2) * 4 * MIB
    assert forecast.parts["maintenance"] == (3 + 1) * 64 * MIB
    assert forecast.total_bytes == sum(forecast.parts.values())
    assert forecast.largest_part == "temporary"


@pytest.mark.parametrize(
    ("values", "on_15", "on_18"),
    [
        ({"wal_buffers": 512}, 143, 150),
        ({"shared_buffers": 131072}, 1074, 1086),
        ({"shared_buffers": 2097152}, 16771, 16823),
        ({"wal_buffers": 512, "max_connections": 1000}, 184, 197),
        ({"wal_buffers": 512, "max_connections": 5000}, 378, 389),
        ({"wal_buffers": 2048}, 155, 162),
        ({"wal_buffers": 512, "max_worker_processes": 128}, 149, 158),
    ],
)
def test_shared_memory_is_never_less_than_the_server_says_of_itself_and_at_most_a_tenth_more(values, on_15, on_18):
    """Measured by ``postgres -C shared_memory_size``, in MB."""
    predicted = predicted_peak_bytes(values).parts["shared"] / MIB
    assert on_18 <= predicted <= 1.1 * on_15


def test_our_own_concurrency_limits_the_active_sessions_where_it_is_set():
    limited = predicted_peak_bytes({"client.concurrency": 8, "max_connections": 100})
    assert limited.parts["queries"] == predicted_peak_bytes({"max_connections": 100}, active=8).parts["queries"]
    assert limited.parts["queries"] < predicted_peak_bytes({"max_connections": 100}).parts["queries"]


def test_autovacuum_workers_take_their_own_memory_where_it_is_set():
    own = predicted_peak_bytes({"autovacuum_work_mem": 32768, "autovacuum_max_workers": 3})
    assert own.parts["maintenance"] == (64 + 3 * 32) * MIB


@pytest.mark.parametrize("name", [name for name, knob in CATALOGUE.items() if knob.kind in {"integer", "real"}])
def test_a_knob_has_a_memory_rule_if_and_only_if_it_moves_the_prediction(name):
    knob = CATALOGUE[name]
    calm = {"max_parallel_workers": 64, "max_worker_processes": 64, "max_parallel_workers_per_gather": 16}
    moved = {predicted_peak_bytes({**calm, name: value}).total_bytes for value in (knob.minimum, knob.maximum)}
    assert (len(moved) == 2) == (knob.memory_rule is not None)
    assert knob.memory_rule in {None, *MEMORY_RULES}


def test_every_memory_rule_is_played_by_a_knob():
    assert {knob.memory_rule for knob in CATALOGUE.values()} - {None} == MEMORY_RULES
    assert CATALOGUE["client.concurrency"].scope is Scope.CLIENT


def test_four_fifths_of_the_machine_are_allowed():
    machine = Machine(10 * GIB, "cgroup v2", cpus=2, is_local=True)
    assert allowed_bytes(machine) == 8 * GIB
