"""The first configuration from the machine alone."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.knob import Scope, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.memory import allowed_bytes, predicted_peak_bytes
from ml_postgres_optimization.knobs.rules import rule_configuration

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SSD = Machine(16 * GIB, "RAM", cpus=8, is_local=True, disk_free_bytes=500 * GIB, rotational_disk=False)
INT_MAX = 2147483647

STOCK = {
    setting.name: setting
    for setting in (
        Setting("work_mem", 4096, "integer", "kB", "user", "default", 64, INT_MAX),
        Setting("hash_mem_multiplier", 2.0, "real", None, "user", "default", 1, 1000),
        Setting("maintenance_work_mem", 65536, "integer", "kB", "user", "default", 1024, INT_MAX),
        Setting("autovacuum_work_mem", -1, "integer", "kB", "sighup", "default", -1, INT_MAX),
        Setting("autovacuum_max_workers", 3, "integer", None, "postmaster", "default", 1, 262143),
        Setting("effective_cache_size", 524288, "integer", "8kB", "user", "default", 1, INT_MAX),
        Setting("random_page_cost", 4.0, "real", None, "user", "default", 0, 1e308),
        Setting("effective_io_concurrency", 1, "integer", None, "user", "default", 0, 1000),
        Setting("jit", True, "bool", None, "user", "default"),
        Setting("max_parallel_workers", 8, "integer", None, "user", "default", 0, 1024),
        Setting("max_parallel_workers_per_gather", 2, "integer", None, "user", "default", 0, 1024),
        Setting("max_worker_processes", 8, "integer", None, "postmaster", "default", 0, 262143),
        Setting("max_connections", 100, "integer", None, "postmaster", "configuration file", 1, 262143),
        Setting("shared_buffers", 16384, "integer", "8kB", "postmaster", "configuration file", 16, 1073741823),
        Setting("temp_buffers", 1024, "integer", "8kB", "user", "default", 100, 1073741823),
        Setting("checkpoint_completion_target", 0.9, "real", None, "sighup", "default", 0, 1),
        Setting("max_wal_size", 1024, "integer", "MB", "sighup", "configuration file", 2, INT_MAX),
        Setting("min_wal_size", 80, "integer", "MB", "sighup", "configuration file", 2, INT_MAX),
        Setting(
            "wal_compression",
            "off",
            "enum",
            None,
            "superuser",
            "default",
            enumvals=("pglz", "lz4", "zstd", "on", "off"),
        ),
    )
}


def advised(machine=SSD, changed=None, **more):
    live = {**STOCK, **{name: replace(STOCK[name], **change) for name, change in (changed or {}).items()}}
    catalogue = load_catalogue().confront(live, 15, machine)
    return rule_configuration(machine, catalogue, live, **more)


def test_a_machine_gets_what_pgtune_would_give_it_within_our_corrections():
    configuration = advised().configuration
    assert configuration["effective_cache_size"] == 12 * GIB // (8 * KIB)
    assert configuration["maintenance_work_mem"] == GIB // KIB
    assert configuration["max_wal_size"] == 4096
    assert configuration["min_wal_size"] == 1024
    assert configuration["random_page_cost"] == 1.1
    assert configuration["effective_io_concurrency"] == 200
    assert configuration["jit"] is False
    assert configuration["wal_compression"] == "lz4"
    assert configuration["max_parallel_workers_per_gather"] == 4
    assert configuration["client.concurrency"] == 17


def test_work_mem_takes_half_of_what_the_memory_rule_leaves():
    advice = advised(connections=20, active=10)
    values = {
        **{name: setting.value for name, setting in STOCK.items()},
        **advice.configuration,
        **advice.restart_advice,
    }

    def peak(work_mem):
        return predicted_peak_bytes({**values, "work_mem": work_mem}, connections=20, active=10).total_bytes

    proposed = advice.configuration["work_mem"]
    assert peak(2 * proposed) <= allowed_bytes(SSD) < peak(2 * (proposed + KIB))


def test_the_more_sessions_are_active_the_less_each_gets():
    few, many = (advised(active=active).configuration["work_mem"] for active in (10, 20))
    assert few > many > 4096


def test_what_is_in_force_and_not_changed_stays_in_the_configuration():
    advice = advised()
    assert advice.configuration["hash_mem_multiplier"] == 2.0
    assert "hash_mem_multiplier" not in advice.reasons


def test_what_needs_a_restart_is_advice_and_not_configuration():
    advice = advised(replace(SSD, cpus=32))
    assert dict(advice.restart_advice) == {
        "shared_buffers": 4 * GIB // (8 * KIB),
        "max_worker_processes": 32,
        "autovacuum_max_workers": 5,
    }
    assert not set(advice.restart_advice) & set(advice.configuration)


def test_every_change_has_a_reason():
    advice = advised()
    stock = {name: setting.value for name, setting in STOCK.items()}
    changed = {name for name, value in advice.configuration.items() if stock.get(name) != value}
    assert changed | set(advice.restart_advice) == set(advice.reasons)


def test_a_container_gets_its_own_share_and_not_the_hosts():
    small = advised(replace(SSD, memory_limit_bytes=2 * GIB, cpus=2), connections=20).configuration
    assert small["effective_cache_size"] == 3 * GIB // 2 // (8 * KIB)
    assert small["client.concurrency"] == 5


@pytest.mark.parametrize("rotational", [None, True])
def test_a_disk_that_may_be_a_fast_virtual_one_is_no_reason_for_anything(rotational):
    advice = advised(replace(SSD, rotational_disk=rotational))
    assert not {"random_page_cost", "effective_io_concurrency"} & set(advice.reasons)


def test_sizes_are_whole_megabytes():
    odd = advised(replace(SSD, memory_limit_bytes=25_276_502_016))
    for name, blocks_in_a_mib in {
        "effective_cache_size": 128,
        "maintenance_work_mem": 1024,
        "work_mem": 1024,
    }.items():
        assert odd.configuration[name] % blocks_in_a_mib == 0
    assert odd.restart_advice["shared_buffers"] % 128 == 0


def test_the_wal_leaves_seven_eighths_of_a_small_disk_free():
    configuration = advised(replace(SSD, disk_free_bytes=12 * GIB)).configuration
    assert configuration["max_wal_size"] == 12 * GIB // MIB // 8
    tiny = advised(replace(SSD, disk_free_bytes=2 * GIB)).configuration
    assert tiny["max_wal_size"] == 1024, "never lowered"


def test_only_what_the_server_was_built_with_is_proposed():
    plain = advised(changed={"wal_compression": {"enumvals": ("pglz", "on", "off")}})
    assert plain.configuration["wal_compression"] == "off"
    older = advised(changed={"wal_compression": {"kind": "bool", "value": False, "enumvals": ()}})
    assert older.configuration["wal_compression"] is False


def test_a_pinned_knob_is_not_proposed():
    advice = advised(changed={"work_mem": {"source": "user"}})
    assert "work_mem" not in advice.configuration
    assert "work_mem" not in advice.reasons


def test_more_than_the_rule_gives_is_left_as_it_is():
    generous = {
        "work_mem": {"value": 512 * KIB},
        "max_wal_size": {"value": 65536},
        "shared_buffers": {"value": 6 * GIB // (8 * KIB)},
    }
    advice = advised(changed=generous, active=4, connections=20)
    assert advice.configuration["work_mem"] == 512 * KIB
    assert advice.configuration["max_wal_size"] == 65536
    assert "shared_buffers" not in advice.restart_advice


def test_few_processors_get_no_more_parallel_workers():
    assert not {"max_parallel_workers", "max_parallel_workers_per_gather"} & set(
        advised(replace(SSD, cpus=2)).reasons
    )


@settings(max_examples=200)
@given(
    memory_mib=st.integers(256, 1 << 20),
    cpus=st.floats(0.5, 128),
    disk_mib=st.one_of(st.none(), st.integers(0, 1 << 22)),
    connections=st.integers(10, 500),
    active=st.one_of(st.none(), st.integers(1, 500)),
)
def test_no_machine_is_given_more_than_it_has(memory_mib, cpus, disk_mib, connections, active):
    disk_free_bytes = None if disk_mib is None else disk_mib * MIB
    machine = Machine(memory_mib * MIB, "RAM", cpus=cpus, is_local=True, disk_free_bytes=disk_free_bytes)
    configuration = advised(machine, connections=connections, active=active).configuration
    live = {name: setting.value for name, setting in STOCK.items()}
    peaks = [
        predicted_peak_bytes({**live, **values}, connections=connections, active=active).total_bytes
        for values in (configuration, {"client.concurrency": configuration.get("client.concurrency", 1)})
    ]
    assert peaks[0] <= max(allowed_bytes(machine), peaks[1])


def test_the_configuration_holds_only_knobs_that_take_effect_without_a_restart():
    catalogue = load_catalogue().confront(STOCK, 15, SSD)
    assert all(catalogue[name].scope < Scope.RESTART for name in advised().configuration)


def test_a_file_without_knobs_gives_no_advice(tmp_path):
    path = tmp_path / "knobs.toml"
    path.write_text("")
    advice = rule_configuration(SSD, load_catalogue(path), STOCK)
    assert (dict(advice.configuration), advice.restart_advice) == ({}, {})


@pytest.mark.parametrize("gigabytes", [1, 4, 64, 1024])
def test_proposals_lie_in_the_range_of_their_knob(gigabytes):
    machine = replace(SSD, memory_limit_bytes=gigabytes * GIB)
    catalogue = load_catalogue().confront(STOCK, 15, machine)
    advice = rule_configuration(machine, catalogue, STOCK)
    proposed = {**advice.configuration, **advice.restart_advice}
    for name in advice.reasons:
        knob = catalogue[name]
        if knob.kind in {"integer", "real"}:
            assert knob.minimum <= proposed[name] <= knob.maximum
