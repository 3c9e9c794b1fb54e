"""What remains of a knob of the catalogue on the server that is there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.knobs.knob import Knob, Scope, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.rendering import bytes_of, parse

# Beyond the knobs themselves, what bounds them.
BOUNDING_SETTINGS = frozenset(
    {
        "io_max_combine_limit",
        "max_connections",
        "max_worker_processes",
        "reserved_connections",
        "shared_buffers",
        "superuser_reserved_connections",
        "wal_segment_size",
    }
)

_MIB = 1 << 20
# Our collector, sampler, actuator, lock and repository: these must not be refused while a load runs.
_OWN_CONNECTIONS = 5
_LARGEST_WAL_SHARE_OF_FREE_DISK = 0.5
_LARGEST_SHARED_BUFFERS_SHARE = 0.4
_REPLAYED_MIB_PER_SECOND = 20.0

_SCOPE_OF_CONTEXT = {
    "postmaster": Scope.RESTART,
    "sighup": Scope.RELOAD,
    "superuser-backend": Scope.RELOAD,
    "backend": Scope.RELOAD,
    "superuser": Scope.SESSION,
    "user": Scope.SESSION,
}

# What wins over postgresql.auto.conf, so that a change of ours would have no effect.
_PINNED_BY = {
    "command line": "the server's command line",
    "override": "the server itself",
    "global": "ALTER ROLE ALL",
    "database": "ALTER DATABASE",
    "user": "ALTER ROLE",
    "database user": "ALTER ROLE IN DATABASE",
    "client": "the options of our own connection",
    "session": "SET in our own session",
}


class Unfit(Exception):
    """A knob that cannot be tuned on this server; the message says why."""


def pinned_by(setting: Setting) -> str | None:
    """Say who decides on a setting, where ``ALTER SYSTEM`` does not; None where it does.

    Notes
    -----
    A restart-scope setting that the server worked out for itself (``wal_buffers`` before 15) has source
    ``override`` too, and is not pinned by it.
    """
    if setting.source == "override" and setting.context == "postmaster":
        return None
    return _PINNED_BY.get(setting.source)


def confronted(knob: Knob, setting: Setting | None, major: int) -> Knob:
    """Return `knob` as the server knows it: its type, unit and scope, its range and choices cut to what is accepted.

    Raises
    ------
    Unfit
        If the server lacks it, somebody else decides on it, or nothing of its range remains.
    """
    if knob.scope is Scope.CLIENT:
        return knob
    _refuse_other_versions(knob, major)
    if setting is None:
        raise Unfit("this server does not have it")
    pin = pinned_by(setting)
    if pin:
        raise Unfit(f"it is set by {pin}, which wins over ALTER SYSTEM")
    if knob.unit != setting.unit:
        raise Unfit(f"its unit is {setting.unit} here, and {knob.unit} in the catalogue")
    return _ranged(_typed(replace(knob, scope=_scope(knob, setting)), setting), setting)


def _refuse_other_versions(knob: Knob, major: int) -> None:
    if knob.since_version and major < knob.since_version:
        raise Unfit(f"PostgreSQL has it from {knob.since_version} on")
    if knob.until_version and major > knob.until_version:
        raise Unfit(f"PostgreSQL had it until {knob.until_version}")


def _scope(knob: Knob, setting: Setting) -> Scope:
    live = _SCOPE_OF_CONTEXT.get(setting.context)
    if live is None:
        raise Unfit(f"it cannot be changed (context {setting.context})")
    return live if knob.scope is Scope.RESTART else max(live, knob.scope)


def _typed(knob: Knob, setting: Setting) -> Knob:
    """Take type and choices from the server; an enum may have been a bool in an older major version."""
    if knob.kind == "enum" and setting.kind == "bool":
        return replace(knob, kind="bool", choices=())
    if knob.kind != setting.kind:
        raise Unfit(f"it is of type {setting.kind} here, and {knob.kind} in the catalogue")
    choices = tuple(choice for choice in knob.choices if choice in setting.enumvals)
    if knob.kind == "enum" and len(choices) < 2:
        raise Unfit(f"nothing to choose: of {', '.join(knob.choices)} this server has {', '.join(choices) or 'none'}")
    return replace(knob, choices=choices)


def _ranged(knob: Knob, setting: Setting) -> Knob:
    narrowed_knob = narrowed(knob, setting.minimum, setting.maximum)
    accepted = tuple(
        value
        for value in knob.special_values
        if isinstance(value, str) or _within(float(value), setting.minimum, setting.maximum)
    )
    return replace(narrowed_knob, special_values=accepted)


def _within(value: float, lowest: float | None, highest: float | None) -> bool:
    return (lowest is None or value >= lowest) and (highest is None or value <= highest)


def narrowed(knob: Knob, lowest: float | None, highest: float | None) -> Knob:
    """Return `knob` with its range cut to `lowest` … `highest`; None does not cut.

    Raises
    ------
    Unfit
        If nothing remains.
    """
    if knob.minimum is None or knob.maximum is None:
        return knob
    minimum = max(knob.minimum, -math.inf if lowest is None else lowest)
    maximum = min(knob.maximum, math.inf if highest is None else highest)
    if minimum > maximum:
        raise Unfit(f"no value from {knob.minimum:g} to {knob.maximum:g} is possible here")
    return replace(knob, minimum=minimum, maximum=maximum)


Bounds = dict[str, tuple[float | None, float | None]]


def bounds(settings: Mapping[str, Setting], machine: Machine | None) -> Bounds:
    """Return how far this server and machine allow knobs to go: name → lowest, highest, in base units.

    References
    ----------
    PostgreSQL refuses to start with WAL sizes below two segments, and caps ``io_combine_limit`` and
    ``vacuum_buffer_usage_limit`` in silence (manual, runtime-config-resource). Shared buffers: more than 40 % of
    the memory seldom helps (ibid.).
    """
    segment_mib = _number(settings, "wal_segment_size", 16 * _MIB) / _MIB
    processes = _number(settings, "max_worker_processes", math.inf)
    cpus = math.ceil(machine.cpus) if machine else math.inf
    memory_blocks = machine.memory_limit_bytes // bytes_of(1, "8kB") if machine else math.inf
    return {
        CONCURRENCY: (1, max(1, _free_connections(settings))),
        "min_wal_size": (2 * segment_mib, largest_wal_mib(machine)),
        "max_wal_size": (2 * segment_mib, largest_wal_mib(machine)),
        "max_parallel_workers": (None, processes),
        "max_parallel_workers_per_gather": (None, min(processes, cpus)),
        "effective_cache_size": (None, memory_blocks),
        "shared_buffers": (None, memory_blocks * _LARGEST_SHARED_BUFFERS_SHARE // 1),
        "io_combine_limit": (None, _number(settings, "io_max_combine_limit", math.inf)),
        # One eighth of the shared buffers: the same number in kB as all of them in blocks of 8 kB.
        "vacuum_buffer_usage_limit": (None, _number(settings, "shared_buffers", math.inf)),
    }


def largest_wal_mib(machine: Machine | None) -> float | None:
    """Return how large ``max_wal_size`` may be: half of the free disk, since the server may well exceed it.

    None where the free disk is not known.
    """
    if machine is None or machine.disk_free_bytes is None:
        return None
    return machine.disk_free_bytes * _LARGEST_WAL_SHARE_OF_FREE_DISK // _MIB


def recovery_caps(seconds: float) -> dict[str, float]:
    """Return how large the WAL sizes may be so that a crash recovery ends within `seconds`: name → MB.

    References
    ----------
    At most about ``max_wal_size`` has to be replayed (manual, wal-configuration). 20 MB/s: below the slower of two
    measurements of ours on a busy machine of two cores, 22 and 31 MB/s (``benchmarks/recovery.py --pairs 2 --seconds
    15 --scale 2``), full-page images included.
    """
    largest_mib = seconds * _REPLAYED_MIB_PER_SECOND // 1
    return {"max_wal_size": largest_mib, "min_wal_size": largest_mib}


def _free_connections(settings: Mapping[str, Setting]) -> float:
    kept = ("superuser_reserved_connections", "reserved_connections")
    taken = sum(_number(settings, name, 0) for name in kept)
    return _number(settings, "max_connections", math.inf) - taken - _OWN_CONNECTIONS


def _number(settings: Mapping[str, Setting], name: str, otherwise: float) -> float:
    return float(settings[name].value) if name in settings else otherwise


def parsed_bounds(texts: Iterable[str | float], kind: str, unit: str | None) -> tuple[float, ...]:
    """Read bounds as the catalogue writes them, ``["1MB", "1GB"]``, in the base `unit`.

    Raises
    ------
    ValueError
        If one of them is not a number with a unit that goes with `unit`.
    """
    return tuple(float(parse(str(text), kind, unit)) for text in texts)
