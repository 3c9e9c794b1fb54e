"""The simulated server's settings as initdb leaves them: rows of ``pg_settings`` of PostgreSQL 15.18.

tests/postgres/test_simulated_settings.py compares them with the live view.
"""

from __future__ import annotations

from ml_postgres_optimization.knobs.knob import Setting

VERSION_NUM = 150018
_FILE = "configuration file"
_INT_MAX = 2147483647
_BLOCKS_MAX = 1073741823
_REAL_MAX = 1.79769e308
_COMPRESSIONS = ("pglz", "lz4", "zstd", "on", "off")
_PLANS = ("auto", "force_generic_plan", "force_custom_plan")

STOCK = {
    setting.name: setting
    for setting in (
        Setting("autovacuum_vacuum_cost_limit", -1, "integer", None, "sighup", "default", -1, 10000, (), "-1"),
        Setting("autovacuum_vacuum_scale_factor", 0.2, "real", None, "sighup", "default", 0, 100, (), "0.2"),
        Setting("bgwriter_lru_maxpages", 100, "integer", None, "sighup", "default", 0, _BLOCKS_MAX, (), "100"),
        Setting("block_size", 8192, "integer", None, "internal", "default", 8192, 8192, (), "8192"),
        Setting("checkpoint_completion_target", 0.9, "real", None, "sighup", "default", 0, 1, (), "0.9"),
        Setting("checkpoint_timeout", 300, "integer", "s", "sighup", "default", 30, 86400, (), "300"),
        Setting("default_statistics_target", 100, "integer", None, "user", "default", 1, 10000, (), "100"),
        Setting("effective_cache_size", 524288, "integer", "8kB", "user", "default", 1, _INT_MAX, (), "524288"),
        Setting("effective_io_concurrency", 1, "integer", None, "user", "default", 0, 1000, (), "1"),
        Setting("jit", True, "bool", None, "user", "default", None, None, (), "on"),
        Setting("maintenance_work_mem", 65536, "integer", "kB", "user", "default", 1024, _INT_MAX, (), "65536"),
        Setting("max_connections", 100, "integer", None, "postmaster", _FILE, 1, 262143, (), "100"),
        Setting("max_wal_size", 1024, "integer", "MB", "sighup", _FILE, 2, _INT_MAX, (), "1024"),
        Setting("max_worker_processes", 8, "integer", None, "postmaster", "default", 0, 262143, (), "8"),
        Setting("plan_cache_mode", "auto", "enum", None, "user", "default", None, None, _PLANS, "auto"),
        Setting("random_page_cost", 4.0, "real", None, "user", "default", 0, _REAL_MAX, (), "4"),
        Setting("shared_buffers", 16384, "integer", "8kB", "postmaster", _FILE, 16, _BLOCKS_MAX, (), "16384"),
        Setting(
            "wal_compression", "off", "enum", None, "superuser", "default", enumvals=_COMPRESSIONS, boot_value="off"
        ),
        Setting("work_mem", 4096, "integer", "kB", "user", "default", 64, _INT_MAX, (), "4096"),
    )
}
