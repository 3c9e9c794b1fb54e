"""The catalogue: as it is, as files can be wrong, and against settings of servers."""

import re
from dataclasses import replace

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.confrontation import recovery_caps
from ml_postgres_optimization.knobs.knob import Condition, Scope, Setting
from ml_postgres_optimization.knobs.machine import Machine

GIB = 1 << 30
MACHINE = Machine(8 * GIB, "RAM", cpus=4, is_local=True, disk_free_bytes=20 * GIB)

WORK_MEM = Setting("work_mem", 4096, "integer", "kB", "user", "default", 64, 2147483647)
MAX_CONNECTIONS = Setting("max_connections", 100, "integer", None, "postmaster", "configuration file", 1, 262143)
COMPRESSION = Setting(
    "wal_compression", "off", "enum", None, "superuser", "default", enumvals=("pglz", "lz4", "zstd", "on", "off")
)

NEVER = [
    "fsync",
    "FSYNC",
    "full_page_writes",
    "data_sync_retry",
    "zero_damaged_pages",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "ignore_system_indexes",
    "synchronous_commit",
    "synchronous_standby_names",
    "wal_level",
    "wal_sync_method",
    "enable_seqscan",
    "enable_nestloop",
    "archive_mode",
    "archive_command",
    "archive_library",
    "shared_preload_libraries",
    "session_preload_libraries",
    "restore_command",
    "ssl_passphrase_command",
    "recovery_target_time",
    "primary_conninfo",
    "session_replication_role",
    "hot_standby_feedback",
    "autovacuum_freeze_max_age",
    "vacuum_failsafe_age",
    "max_slot_wal_keep_size",
    "restart_after_crash",
    "allow_system_table_mods",
]


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue()


def confronted(catalogue, *settings, major=15, machine=None):
    return catalogue.confront({setting.name: setting for setting in settings}, major, machine)


def test_there_are_knobs_of_every_cost(catalogue):
    scopes = [knob.scope for knob in catalogue.values()]
    assert len(catalogue) >= 40
    assert {Scope.CLIENT, Scope.SESSION, Scope.RELOAD, Scope.RESTART} == set(scopes)
    assert len(catalogue.online) == len(scopes) - scopes.count(Scope.RESTART)


@pytest.mark.parametrize("name", load_catalogue())
def test_each_knob_names_the_manual_and_the_reason_for_its_range(catalogue, name):
    source = catalogue[name].source
    if catalogue[name].scope is Scope.CLIENT:
        assert source.startswith("PostgreSQL wiki, ")
    else:
        anchor = f"GUC-{name.upper().replace('_', '-')}"
        assert re.match(rf"manual: runtime-config-[a-z]+#{anchor};", source)
    assert re.search(r"; range: \S+", source)


@pytest.mark.parametrize("name", NEVER)
def test_what_can_cost_data_or_service_is_forbidden(catalogue, name):
    assert catalogue.forbidden_reason(name)
    assert name not in catalogue


@pytest.mark.parametrize("value", [False, "off", "OFF", "no", "false", "0"])
@pytest.mark.parametrize("name", ["autovacuum", "track_counts", "track_activities"])
def test_some_may_only_not_be_switched_off(catalogue, name, value):
    assert catalogue.forbidden_reason(name, value)
    assert catalogue.forbidden_reason(name, True) is None
    assert catalogue.forbidden_reason(name) is None


def test_no_knob_is_forbidden(catalogue):
    assert not {name for name in catalogue if catalogue.forbidden_reason(name)}


def test_the_owner_may_allow_synchronous_commit_by_name_and_nothing_else(catalogue):
    assert "only the owner of the data" in catalogue.left_out["synchronous_commit"]
    allowed = load_catalogue(allowed_by_owner=["synchronous_commit"])
    assert allowed["synchronous_commit"].choices == ("on", "off")
    assert allowed.forbidden_reason("synchronous_commit", "off") is None
    with pytest.raises(UsageError, match="fsync cannot be allowed"):
        load_catalogue(allowed_by_owner=["fsync"])
    assert replace(allowed, allowed_by_owner=frozenset({"fsync"})).forbidden_reason("fsync")


ENTRY = """
[[knob]]
name = "work_mem"
kind = "integer"
unit = "kB"
scope = "session"
range = ["1MB", "1GB"]
scale = "log"
summary = "Memory."
source = "a book"
"""


def test_a_file_of_the_users_is_read(tmp_path):
    path = tmp_path / "knobs.toml"
    path.write_text(ENTRY)
    knob = load_catalogue(path)["work_mem"]
    assert (knob.minimum, knob.maximum, knob.log_scale, knob.scope) == (1024, 1048576, True, Scope.SESSION)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[[knob]]", "[[knob", "TOML|Expected|knob"),
        ("[[knob]]", "[knob]", r"knob is written \[\[knob\]\]"),
        ("[[knob]]", "[[nob]]", "unknown table nob"),
        ('name = "work_mem"', "", r"\[\[knob\]\] without a name name: Field required"),
        ('kind = "integer"', 'kind = "number"', "work_mem kind"),
        ('scope = "session"', 'scope = "cluster"', "work_mem scope"),
        ('range = ["1MB", "1GB"]', "", "a range belongs to an integer"),
        ('range = ["1MB", "1GB"]', 'range = ["1GB", "1MB"]', "not a lower and a higher value"),
        ('range = ["1MB", "1GB"]', 'range = ["1MB"]', "work_mem range"),
        ('range = ["1MB", "1GB"]', 'range = ["1min", "1h"]', "no unit that goes with kB"),
        ('range = ["1MB", "1GB"]', "range = [0, 5]", "only a range above 0"),
        ('summary = "Memory."', 'summary = " "', "work_mem summary"),
        ('summary = "Memory."', 'summary = "Memory."\ncolour = "red"', "work_mem colour"),
        ('summary = "Memory."', 'summary = "Memory."\nmemory_rule = "much"', "memory_rule may be"),
        ('summary = "Memory."', 'summary = "Memory."\nchoices = ["a", "b"]', "choices belong to an enum"),
        (ENTRY, ENTRY + ENTRY, "stands there 2 times"),
        (ENTRY, ENTRY + '\n[[forbidden]]\npattern = "x"', r"\[\[forbidden\]\] x reason: Field required"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_reason(tmp_path, old, new, complaint):
    path = tmp_path / "knobs.toml"
    path.write_text(ENTRY.replace(old, new))
    with pytest.raises(UsageError) as refused:
        load_catalogue(path)
    assert re.search(complaint, refused.value.what)
    assert str(path) in refused.value.what
    assert "\n" not in refused.value.what


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load_catalogue(tmp_path / "knobs.toml")


def test_a_knob_that_the_server_has_as_expected_stays(catalogue):
    there = confronted(catalogue, WORK_MEM)
    assert there["work_mem"] == catalogue["work_mem"]
    assert there.left_out["jit"] == "this server does not have it"


def test_the_servers_limits_narrow_the_range(catalogue):
    narrow = replace(WORK_MEM, minimum=2048, maximum=65536)
    knob = confronted(catalogue, narrow)["work_mem"]
    assert (knob.minimum, knob.maximum) == (2048, 65536)
    empty = replace(WORK_MEM, maximum=512)
    assert "no value from" in confronted(catalogue, empty).left_out["work_mem"]


def test_special_values_that_the_server_does_not_accept_are_dropped(catalogue):
    limit = Setting("autovacuum_work_mem", -1, "integer", "kB", "sighup", "default", -1, 2147483647)
    assert confronted(catalogue, limit)["autovacuum_work_mem"].special_values == (-1,)
    without = replace(limit, minimum=64, value=64)
    assert confronted(catalogue, without)["autovacuum_work_mem"].special_values == ()


def test_only_what_the_server_was_built_with_can_be_chosen(catalogue):
    assert confronted(catalogue, COMPRESSION)["wal_compression"].choices == ("off", "pglz", "lz4", "zstd")
    plain = replace(COMPRESSION, enumvals=("pglz", "on", "off"))
    assert confronted(catalogue, plain)["wal_compression"].choices == ("off", "pglz")
    alone = replace(COMPRESSION, enumvals=("off",))
    assert "nothing to choose" in confronted(catalogue, alone).left_out["wal_compression"]


def test_an_enum_that_was_a_bool_in_an_older_version_is_one(catalogue):
    older = Setting("wal_compression", False, "bool", None, "superuser", "default")
    knob = confronted(catalogue, older, major=14)["wal_compression"]
    assert (knob.kind, knob.choices) == ("bool", ())


@pytest.mark.parametrize(
    ("context", "scope"),
    [("user", Scope.SESSION), ("superuser", Scope.SESSION), ("sighup", Scope.RELOAD), ("postmaster", Scope.RESTART)],
)
def test_the_servers_context_decides_on_the_scope(catalogue, context, scope):
    assert confronted(catalogue, replace(WORK_MEM, context=context))["work_mem"].scope is scope


def test_a_wider_scope_of_the_catalogue_stays_and_a_restart_that_is_not_needed_does_not(catalogue):
    maintenance = Setting("maintenance_work_mem", 65536, "integer", "kB", "user", "default", 1024, 2147483647)
    workers = Setting("autovacuum_max_workers", 3, "integer", None, "sighup", "default", 1, 262143)
    there = confronted(catalogue, maintenance, workers, major=18)
    assert there["maintenance_work_mem"].scope is Scope.RELOAD
    assert there["autovacuum_max_workers"].scope is Scope.RELOAD


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": "command line"}, "the server's command line, which wins over ALTER SYSTEM"),
        ({"source": "database"}, "ALTER DATABASE"),
        ({"source": "user"}, "ALTER ROLE"),
        ({"source": "database user"}, "ALTER ROLE IN DATABASE"),
        ({"source": "global"}, "ALTER ROLE ALL"),
        ({"source": "override"}, "the server itself"),
        ({"source": "client"}, "the options of our own connection"),
        ({"context": "internal"}, "context internal"),
        ({"unit": "MB"}, "its unit is MB here, and kB in the catalogue"),
        ({"unit": None}, "its unit is None here"),
        ({"kind": "real"}, "of type real here, and integer in the catalogue"),
    ],
)
def test_a_knob_that_somebody_else_decides_on_or_that_is_another_is_left_out(catalogue, change, reason):
    there = confronted(catalogue, replace(WORK_MEM, **change))
    assert "work_mem" not in there
    assert reason in there.left_out["work_mem"]


def test_what_the_server_worked_out_for_itself_at_its_start_is_not_pinned(catalogue):
    buffers = Setting("wal_buffers", 512, "integer", "8kB", "postmaster", "override", -1, 262143)
    assert "wal_buffers" in confronted(catalogue, buffers, major=14)


def test_knobs_of_other_versions_are_left_out(catalogue):
    limit = Setting("vacuum_buffer_usage_limit", 256, "integer", "kB", "user", "default", 0, 16777216)
    assert "PostgreSQL has it from 16 on" in confronted(catalogue, limit).left_out["vacuum_buffer_usage_limit"]
    assert "vacuum_buffer_usage_limit" in confronted(catalogue, limit, major=16)


def test_the_machine_and_the_server_bound_what_is_searched(catalogue):
    settings = {
        setting.name: setting
        for setting in (
            MAX_CONNECTIONS,
            Setting("superuser_reserved_connections", 3, "integer", None, "postmaster", "default", 0, 262143),
            Setting("max_worker_processes", 8, "integer", None, "postmaster", "default", 0, 262143),
            Setting("max_parallel_workers", 8, "integer", None, "user", "default", 0, 1024),
            Setting("max_parallel_workers_per_gather", 2, "integer", None, "user", "default", 0, 1024),
            Setting("effective_cache_size", 524288, "integer", "8kB", "user", "default", 1, 2147483647),
            Setting("shared_buffers", 16384, "integer", "8kB", "postmaster", "default", 16, 1073741823),
            Setting("wal_segment_size", 64 << 20, "integer", "B", "internal", "default", 1 << 20, 1 << 30),
            Setting("min_wal_size", 1024, "integer", "MB", "sighup", "default", 2, 2147483647),
            Setting("max_wal_size", 1024, "integer", "MB", "sighup", "default", 2, 2147483647),
        )
    }
    there = catalogue.confront(settings, 15, MACHINE)
    assert there["client.concurrency"].maximum == 100 - 3 - 5
    assert there["max_parallel_workers"].maximum == 8
    assert there["max_parallel_workers_per_gather"].maximum == 4
    assert there["effective_cache_size"].maximum == 8 * GIB // 8192
    assert there["shared_buffers"].maximum == 8 * GIB * 0.4 // 8192
    assert there["min_wal_size"].minimum == 128
    assert there["max_wal_size"].maximum == 10 * 1024


def test_what_is_in_force_makes_a_configuration_of_the_knobs_that_need_no_restart(catalogue):
    there = confronted(catalogue, WORK_MEM, MAX_CONNECTIONS)
    settings = {"work_mem": WORK_MEM, "max_connections": MAX_CONNECTIONS}
    configuration = there.configuration_of(settings, {"client.concurrency": 8, "client.unknown": 1})
    assert dict(configuration) == {"work_mem": 4096, "client.concurrency": 8}


def test_the_settings_needed_are_named_without_those_on_our_own_side(catalogue):
    needed = catalogue.settings_needed
    assert {"work_mem", "temp_buffers", "wal_segment_size"} <= needed
    assert not [name for name in needed if "." in name]


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("jit = on", True, True),
        ("jit = on", False, False),
        ("commit_delay > 0", 0, False),
        ("commit_delay > 0", 10.0, True),
        ("a != 0", 0.0, False),
        ("a != 0", -1, True),
        ("io_method = worker", "worker", True),
        ("io_method = worker", "sync", False),
        ("io_method = worker", None, True),
    ],
)
def test_a_condition_says_whether_a_knob_has_any_effect(text, value, holds):
    assert Condition.parse(text).holds(value) is holds


@pytest.mark.parametrize("text", ["jit", "jit is on", "jit > on", "jit = on off"])
def test_a_condition_that_is_none_is_refused(text):
    with pytest.raises(ValueError):
        Condition.parse(text)


def test_a_condition_on_a_knob_that_is_not_there_is_refused(tmp_path):
    entry = '[[knob]]\nname = "a"\nkind = "bool"\nscope = "reload"\nsummary = "s"\nsource = "s"\n'
    path = tmp_path / "catalogue.toml"
    path.write_text(entry + 'only_if = "missing = on"\n')
    with pytest.raises(UsageError, match="missing"):
        load_catalogue(path)


IO_WORKERS = Setting("io_workers", 3, "integer", None, "sighup", "default", 1, 32)


@pytest.mark.parametrize(("method", "is_there"), [("worker", True), ("sync", False)])
def test_a_knob_that_the_server_as_started_makes_nothing_of_is_left_out(catalogue, method, is_there):
    io_method = Setting(
        "io_method", method, "enum", None, "postmaster", "default", enumvals=("sync", "worker", "io_uring")
    )
    there = confronted(catalogue, IO_WORKERS, io_method, major=18)
    assert ("io_workers" in there) is is_there
    assert is_there or there.left_out["io_workers"] == "it has no effect while io_method is sync"


def test_wal_is_bounded_by_the_time_that_a_recovery_may_take():
    catalogue = load_catalogue()
    for seconds, expected in ((300.0, 6000), (60.0, 1200)):
        assert catalogue.capped(recovery_caps(seconds))["max_wal_size"].maximum == expected
    unbounded = catalogue.capped(recovery_caps(1e9))
    assert unbounded["max_wal_size"].maximum == catalogue["max_wal_size"].maximum
    assert unbounded["work_mem"] == catalogue["work_mem"]
    assert catalogue["min_wal_size"].minimum > 32.0
    without = catalogue.capped(recovery_caps(10.0))
    assert "max_wal_size" not in without
    assert "is possible here" in without.left_out["max_wal_size"]
