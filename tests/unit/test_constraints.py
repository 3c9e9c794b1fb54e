"""What no change may do."""

import math
from dataclasses import replace

import pytest

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.safety.constraints import Circumstances, review
from ml_postgres_optimization.safety.permission import permitted, refusal
from ml_postgres_optimization.target.capabilities import Capabilities

GIB = 1 << 30
INT_MAX = 2147483647
MACHINE = Machine(16 * GIB, "cgroup v2", cpus=4, is_local=True, disk_free_bytes=20 * GIB)
OWNER_OF_ALL = Capabilities(
    150018, "15.18", "1", "postgres", "tuner", may_alter_system=True, may_reload=True, settings_visible=True
)
SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("work_mem", 4096, "integer", "kB", "user", "default", 64, INT_MAX),
        Setting("hash_mem_multiplier", 2.0, "real", None, "user", "default", 1, 1000),
        Setting("maintenance_work_mem", 65536, "integer", "kB", "user", "default", 1024, INT_MAX),
        Setting("autovacuum_work_mem", -1, "integer", "kB", "sighup", "default", -1, INT_MAX),
        Setting("jit", True, "bool", None, "user", "default"),
        Setting("max_parallel_workers", 8, "integer", None, "user", "default", 0, 1024),
        Setting("max_parallel_workers_per_gather", 2, "integer", None, "user", "default", 0, 1024),
        Setting("max_worker_processes", 8, "integer", None, "postmaster", "default", 0, 262143),
        Setting("max_connections", 100, "integer", None, "postmaster", "configuration file", 1, 262143),
        Setting("shared_buffers", 16384, "integer", "8kB", "postmaster", "configuration file", 16, 1073741823),
        Setting("max_wal_size", 1024, "integer", "MB", "sighup", "configuration file", 2, INT_MAX),
        Setting("min_wal_size", 80, "integer", "MB", "sighup", "configuration file", 2, INT_MAX),
        Setting("wal_compression", "off", "enum", None, "superuser", "default", enumvals=("pglz", "on", "off")),
        Setting("random_page_cost", 4.0, "real", None, "user", "user", 0, 1e308),
    )
}


def circumstances(*, allowed=(), settings=SETTINGS, machine=MACHINE, capabilities=OWNER_OF_ALL, **more):
    catalogue = load_catalogue(allowed_by_owner=allowed).confront(settings, 15, machine)
    return Circumstances(catalogue, settings, machine, capabilities, **more)


def refused(configuration, **more):
    before = more.pop("before", None)
    with pytest.raises(ChangeRefused) as error:
        review(configuration, circumstances(**more), before=before)
    assert len(str(error.value).splitlines()) == 2
    return error.value


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"work_mem": 16384, "jit": False, "wal_compression": "pglz", "hash_mem_multiplier": 1.5},
        {"work_mem": 16384.0},
        {"autovacuum_work_mem": 65536},
        {"client.concurrency": 8},
        {"min_wal_size": 1024, "max_wal_size": 4096},
        {"max_connections": 100},
        {"random_page_cost": 4.0},
    ],
)
def test_what_is_sound_passes_and_so_does_what_is_in_force(configuration):
    review(configuration, circumstances())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", False),
        ("FSYNC", "off"),
        ("full_page_writes", False),
        ("enable_seqscan", False),
        ("autovacuum", "off"),
    ],
)
def test_what_is_forbidden_is_refused_even_by_hand(name, value):
    assert f"{name} = off is refused: " in refused({"work_mem": 8192, name: value}).what


def test_synchronous_commit_passes_only_where_the_owner_named_it():
    commit = Setting(
        "synchronous_commit", "on", "enum", None, "user", "default", enumvals=("local", "remote_apply", "on", "off")
    )
    settings = {**SETTINGS, "synchronous_commit": commit}
    assert "only the owner of the data may choose" in refused({"synchronous_commit": "off"}, settings=settings).what
    review({"synchronous_commit": "off"}, circumstances(allowed=["synchronous_commit"], settings=settings))


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        ({"checkpoint_warning": 10}, "it is not in the catalogue of knobs"),
        ({"geqo": False}, "it is not in the catalogue of knobs"),
        ({"jit_above_cost": 1e6}, "this server does not have it"),
        ({"random_page_cost": 1.1}, "it is set by ALTER ROLE, which wins over ALTER SYSTEM"),
        ({"shared_buffers": 131072}, "shared_buffers = 1GB needs a restart of the server, which nobody has allowed"),
        ({"work_mem": 64}, "work_mem = 64kB is refused: it may be from 1MB to 1GB"),
        ({"work_mem": 2097152}, "work_mem = 2GB is refused: it may be from 1MB to 1GB"),
        ({"autovacuum_work_mem": -2}, "it may be from 64MB to 2GB, or -1"),
        ({"wal_compression": "lz4"}, "wal_compression = lz4 is refused: it may be off, pglz"),
        ({"wal_compression": True}, "it takes a value of type enum"),
        ({"work_mem": "64MB"}, "work_mem = '64MB' is refused: it takes a value of type integer"),
        ({"work_mem": 8192.5}, "it takes a value of type integer"),
        ({"work_mem": True}, "it takes a value of type integer"),
        ({"hash_mem_multiplier": math.nan}, "it takes a value of type real"),
        ({"hash_mem_multiplier": math.inf}, "it takes a value of type real"),
        ({"jit": 0}, "it takes a value of type bool"),
        ({"client.concurrency": 0}, "client.concurrency = 0 is refused"),
        ({"client.concurrency": 96}, "it may be from 1 to 95"),
        ({"client.patience": 1}, "it is not in the catalogue of knobs"),
    ],
)
def test_what_cannot_or_must_not_be_set_is_refused_with_the_reason(configuration, reason):
    assert reason in refused(configuration).what


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        ({"min_wal_size": 2048}, "min_wal_size = 2GB is refused: it is more than max_wal_size, which is 1GB"),
        ({"max_wal_size": 512, "min_wal_size": 1024}, "it is more than max_wal_size, which is 512MB"),
        ({"max_parallel_workers": 1}, "max_parallel_workers_per_gather = 2 is refused"),
        ({"max_parallel_workers": 2, "max_parallel_workers_per_gather": 4}, "more than max_parallel_workers"),
    ],
)
def test_what_does_not_go_together_is_refused(configuration, reason):
    assert reason in refused(configuration).what


def test_a_disorder_that_is_in_force_is_no_reason_to_refuse_something_else():
    settings = {**SETTINGS, "min_wal_size": replace(SETTINGS["min_wal_size"], value=2048)}
    review({"jit": False, "min_wal_size": 2048}, circumstances(settings=settings))


def test_more_wal_than_half_of_the_free_disk_is_refused_whatever_the_range():
    narrow = replace(MACHINE, disk_free_bytes=4 * GIB)
    there = replace(circumstances(), machine=narrow)
    with pytest.raises(ChangeRefused, match="max_wal_size = 3GB is refused: half of the free disk is 2048 MB"):
        review({"max_wal_size": 3072}, there)
    full = replace(MACHINE, disk_free_bytes=GIB)
    review({"max_wal_size": 1024}, replace(circumstances(), machine=full))
    unknown = replace(MACHINE, disk_free_bytes=None)
    review({"max_wal_size": 65536}, circumstances(machine=unknown))


def test_more_memory_than_allowed_is_refused_with_prediction_limit_and_part():
    message = refused({"work_mem": 1048576}).what
    assert "most for queries" in message
    assert "the limit is 13,107 MB, 80 % of 16,384 MB (cgroup v2)" in message


def test_fewer_active_sessions_leave_room_for_more():
    review({"work_mem": 65536, "client.concurrency": 8}, circumstances())
    refused({"work_mem": 65536, "client.concurrency": 90})
    review({"work_mem": 65536}, circumstances(connections=20, active=8))
    refused({"work_mem": 65536}, connections=20, active=90)


def test_where_the_memory_is_overcommitted_already_a_change_may_not_take_more():
    small = replace(MACHINE, memory_limit_bytes=2 * GIB)
    there = circumstances(machine=small)
    review({"jit": False}, there)
    review({"hash_mem_multiplier": 1.0}, there)
    refused({"work_mem": 4160}, machine=small)


def test_where_the_memory_is_overcommitted_already_our_own_load_may_not_grow():
    small = replace(MACHINE, memory_limit_bytes=2 * GIB)
    review({"client.concurrency": 8}, circumstances(machine=small), before={"client.concurrency": 50})
    refused({"client.concurrency": 50}, machine=small, before={"client.concurrency": 8})


GRANTS = replace(OWNER_OF_ALL, may_alter_system=frozenset({"work_mem"}))


@pytest.mark.parametrize(
    ("capabilities", "what", "next_step"),
    [
        (GRANTS, "Role tuner may not change jit", 'GRANT ALTER SYSTEM ON PARAMETER jit TO "tuner"'),
        (replace(GRANTS, version_num=140012), "Role tuner may not change jit", "only superusers"),
        (
            replace(OWNER_OF_ALL, version_num=140012, may_alter_system=False, settings_visible=False),
            "Role tuner may not change jit",
            "only superusers",
        ),
        (replace(GRANTS, role='my "tuner"'), 'Role my "tuner" may not', 'PARAMETER jit TO "my ""tuner""";'),
        (replace(OWNER_OF_ALL, may_reload=False), "may not change jit", "pg_reload_conf"),
        (replace(OWNER_OF_ALL, managed_by="Patroni"), "Patroni manages", "through Patroni"),
        (replace(OWNER_OF_ALL, alter_system_allowed=False), "allow_alter_system = off", "allow_alter_system = on"),
        (
            replace(OWNER_OF_ALL, settings_visible=False),
            "cannot see what postgresql.auto.conf says",
            "pg_file_settings",
        ),
    ],
)
def test_what_the_role_may_not_do_is_refused_with_what_mends_it(capabilities, what, next_step):
    error = refused({"jit": False}, capabilities=capabilities)
    assert what in error.what
    assert next_step in error.next_step
    assert refusal("jit", capabilities).what == error.what


def test_knobs_that_we_may_not_change_can_be_left_out_beforehand():
    catalogue = permitted(circumstances().catalogue, GRANTS)
    assert "work_mem" in catalogue
    assert "client.concurrency" in catalogue
    assert "shared_buffers" in catalogue, "advice needs no right"
    assert catalogue.left_out["jit"] == "Role tuner may not change jit."
