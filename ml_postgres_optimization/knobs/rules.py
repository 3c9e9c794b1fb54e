"""A first configuration from the machine alone: pgtune's formulas, corrected where they are known to fail.

Corrected are: memory is the cgroup's where there is one; ``work_mem`` is bounded by the memory rule; only what this
server was built with is proposed; the size of the WAL is bounded by the free disk; nothing is proposed for which the
machine gives no reason. What needs a restart is advice, and part of the configuration only where the server may be
restarted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.knobs.confrontation import largest_wal_mib
from ml_postgres_optimization.knobs.knob import Knob, KnobValue, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.memory import allowed_bytes, predicted_peak_bytes
from ml_postgres_optimization.knobs.rendering import bytes_of, render, rounded, same_value

SIZED_BY_MEMORY = frozenset({"effective_cache_size", "maintenance_work_mem", "shared_buffers", "work_mem"})
"""The knobs whose advice is a share of the machine's memory."""

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_MIN_PARALLEL_CPUS = 4


@dataclass(frozen=True, slots=True)
class RuleAdvice:
    """What the rules say of a machine.

    Parameters
    ----------
    configuration : Configuration
        What is in force of the knobs that we may change here, with the rules' values over it.
    restart_advice : mapping of str to KnobValue
        What only a restart would bring, in base units, where the server may not be restarted; not set by us.
    reasons : mapping of str to str
        A sentence for each knob that the rules change or advise.
    """

    configuration: Configuration
    restart_advice: Mapping[str, KnobValue] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Situation:
    """All that the rules know.

    Parameters
    ----------
    values : mapping of str to KnobValue
        What is in force, with what was proposed so far over it.
    connections, active : int
        Sessions at once, and those in a query at once, at the peak.
    """

    machine: Machine
    catalogue: Catalogue
    values: Mapping[str, KnobValue]
    connections: int
    active: int

    @property
    def memory_bytes(self) -> int:
        """What the server may use of the machine."""
        return self.machine.memory_limit_bytes

    def number(self, name: str, otherwise: float) -> float:
        """Return a setting's value."""
        value = self.values.get(name, otherwise)
        return otherwise if isinstance(value, str) else float(value)

    def peak_bytes(self, proposed: Mapping[str, KnobValue]) -> int:
        """Predict the peak of memory with `proposed` over the values."""
        values = {**self.values, **proposed}
        return predicted_peak_bytes(values, connections=self.connections, active=self.active).total_bytes


Advice = tuple[KnobValue, str]
_Rule = Callable[[_Situation], Advice | None]


def rule_configuration(
    machine: Machine,
    catalogue: Catalogue,
    settings: Mapping[str, Setting],
    *,
    connections: int | None = None,
    active: int | None = None,
) -> RuleAdvice:
    """Derive a configuration from the machine.

    Parameters
    ----------
    machine : Machine
    catalogue : Catalogue
        Confronted with this server; only its knobs are used.
    settings : mapping of str to Setting
        The live settings, `catalogue.settings_needed` at least.
    connections : int, optional
        Sessions at the same time at the peak; ``max_connections`` where nobody knows better.
    active : int, optional
        Those in a query; by default our own concurrency limit where it is a knob here, else all connections.

    References
    ----------
    pgtune, ``src/features/configuration/configurationSlice.js`` (the kind "mixed"); each rule names its correction.
    """
    values = {name: setting.value for name, setting in settings.items()}
    situation = _Situation(machine, catalogue, values, 0, 0)
    connected = connections or int(situation.number("max_connections", 100))
    querying = active or (_concurrency(machine) if CONCURRENCY in catalogue else connected)
    advice = dict(_advised(replace(situation, connections=connected, active=querying)))
    tunable = catalogue.tunable
    ours = {name: value for name, (value, _) in advice.items() if name in tunable}
    return RuleAdvice(
        catalogue.configuration_of(settings).replaced(ours),
        {name: value for name, (value, _) in advice.items() if name not in ours},
        {name: reason for name, (_, reason) in advice.items()},
    )


def _advised(situation: _Situation) -> Iterator[tuple[str, Advice]]:
    """Yield each knob for which a rule says something new, clipped to the knob's range and to the memory."""
    for name, rule in _RULES.items():
        knob = situation.catalogue.get(name)
        advice = rule(situation) if knob else None
        if knob is None or advice is None:
            continue
        value = _clipped(advice[0], knob)
        if not _is_news(situation, knob, value):
            continue
        situation = replace(situation, values={**situation.values, name: value})
        yield name, (value, advice[1])


def _is_news(situation: _Situation, knob: Knob, value: KnobValue) -> bool:
    if same_value(value, situation.values.get(knob.name), knob.kind):
        return False
    if knob.name in _ONLY_RAISED and not isinstance(value, str) and value <= situation.number(knob.name, -math.inf):
        return False
    largest = max(allowed_bytes(situation.machine), situation.peak_bytes({}))
    return knob.memory_rule is None or situation.peak_bytes({knob.name: value}) <= largest


def _clipped(value: KnobValue, knob: Knob) -> KnobValue:
    if isinstance(value, bool | str) or knob.minimum is None or knob.maximum is None:
        return value
    bounded = min(max(float(value), knob.minimum), knob.maximum)
    return rounded(int(bounded) if knob.kind == "integer" else bounded, knob.kind)


def _whole_mib(number_of_bytes: float) -> int:
    return int(number_of_bytes // _MIB) * _MIB


def _size(number_of_bytes: float) -> str:
    return render(max(1, int(number_of_bytes // _MIB)), "MB")


def _concurrency(machine: Machine) -> int:
    return 2 * math.ceil(machine.cpus) + 1


def _client_concurrency(situation: _Situation) -> Advice:
    """PostgreSQL wiki, "Number Of Database Connections": twice the cores, and one for each spindle."""
    cores = math.ceil(situation.machine.cpus)
    return _concurrency(situation.machine), f"twice the {cores} processors, and one for the disk"


def _effective_cache_size(situation: _Situation) -> Advice:
    value = _whole_mib(situation.memory_bytes * 3 / 4)
    return value // bytes_of(1, "8kB"), f"three quarters of {_size(situation.memory_bytes)} of memory"


def _maintenance_work_mem(situation: _Situation) -> Advice:
    """Like pgtune, but at most 1 GB: each autovacuum worker may take as much, and before 17 VACUUM uses no more."""
    value = _whole_mib(min(situation.memory_bytes / 16, _GIB))
    return value // _KIB, f"one sixteenth of {_size(situation.memory_bytes)} of memory, at most 1GB"


def _work_mem(situation: _Situation) -> Advice:
    """Half of what the memory rule leaves; the other half is for the page cache, and for knobs yet to be raised.

    pgtune divides what shared buffers leave by (connections + workers) × 3 nodes × 2, whatever else takes memory, and
    whoever is active.
    """
    # The prediction is linear in work_mem.
    without, with_one = situation.peak_bytes({"work_mem": 0}), situation.peak_bytes({"work_mem": _KIB})
    room_mib = (allowed_bytes(situation.machine) - without) / (with_one - without)
    reason = f"what {situation.active} active sessions can take of {_size(situation.memory_bytes)}"
    return max(0, math.floor(room_mib / 2)) * _KIB, reason


def _max_wal_size(situation: _Situation) -> Advice:
    """pgtune's 4 GB, but an eighth of the free disk at most, since the limit is soft."""
    largest = largest_wal_mib(situation.machine)
    value = 4 * _KIB if largest is None else min(4 * _KIB, largest // 4)
    return value, f"{render(int(value), 'MB')} of WAL between checkpoints mean fewer full-page images"


def _min_wal_size(situation: _Situation) -> Advice:
    value = situation.number("max_wal_size", 1_024) // 4
    return value, "a quarter of max_wal_size, so that WAL files are recycled rather than made anew"


def _checkpoint_completion_target(_: _Situation) -> Advice:
    return 0.9, "spreads the writes of a checkpoint over the whole interval"


def _random_page_cost(situation: _Situation) -> Advice | None:
    """Only where the disk is known not to rotate: a virtual one says that it does, whatever is below it."""
    return None if situation.machine.rotational_disk is not False else (1.1, "the disk does not rotate")


def _effective_io_concurrency(situation: _Situation) -> Advice | None:
    return None if situation.machine.rotational_disk is not False else (200, "the disk does not rotate")


def _jit(_: _Situation) -> Advice:
    return False, "short queries do not earn the compilation back"


def _wal_compression(situation: _Situation) -> Advice | None:
    """Only lz4, whose cost is small, and only where the server was built with it."""
    if "lz4" not in situation.catalogue["wal_compression"].choices:
        return None
    return "lz4", "compresses full-page images at little cost"


def _parallel(situation: _Situation) -> dict[str, Advice]:
    """pgtune's workers from 4 processors on, within the processes that this server can have."""
    cpus = math.floor(situation.machine.cpus)
    if cpus < _MIN_PARALLEL_CPUS:
        return {}
    workers = min(cpus, int(situation.number("max_worker_processes", 8)))
    per_gather = min(4, math.ceil(cpus / 2), workers)
    return {
        "max_parallel_workers": (workers, f"one for each of {cpus} processors that the server has processes for"),
        "max_parallel_workers_per_gather": (per_gather, f"half of {cpus} processors, at most 4"),
    }


def _shared_buffers(situation: _Situation) -> Advice:
    value = _whole_mib(situation.memory_bytes / 4)
    return value // bytes_of(1, "8kB"), f"a quarter of {_size(situation.memory_bytes)} of memory"


def _max_worker_processes(situation: _Situation) -> Advice:
    return max(8, math.floor(situation.machine.cpus)), "at least one for each processor"


def _autovacuum_max_workers(situation: _Situation) -> Advice | None:
    cpus = situation.machine.cpus
    if cpus < 16:
        return None
    return 5 if cpus >= 32 else 4, f"{cpus:g} processors can vacuum more tables at once"


# In this order: what takes memory first leaves less for what comes after it. Advice comes first, so that memory still
# suffices once it is followed.
_RULES: Mapping[str, _Rule] = {
    "shared_buffers": _shared_buffers,
    "max_worker_processes": _max_worker_processes,
    CONCURRENCY: _client_concurrency,
    "effective_cache_size": _effective_cache_size,
    "max_parallel_workers": lambda situation: _parallel(situation).get("max_parallel_workers"),
    "max_parallel_workers_per_gather": lambda situation: _parallel(situation).get("max_parallel_workers_per_gather"),
    "autovacuum_max_workers": _autovacuum_max_workers,
    "maintenance_work_mem": _maintenance_work_mem,
    "work_mem": _work_mem,
    "max_wal_size": _max_wal_size,
    "min_wal_size": _min_wal_size,
    "checkpoint_completion_target": _checkpoint_completion_target,
    "random_page_cost": _random_page_cost,
    "effective_io_concurrency": _effective_io_concurrency,
    "jit": _jit,
    "wal_compression": _wal_compression,
}

# Where more was given already, somebody had a reason.
_ONLY_RAISED = frozenset(
    {
        "autovacuum_max_workers",
        "checkpoint_completion_target",
        "maintenance_work_mem",
        "max_parallel_workers",
        "max_parallel_workers_per_gather",
        "max_wal_size",
        "max_worker_processes",
        "min_wal_size",
        "shared_buffers",
        "work_mem",
    }
)
