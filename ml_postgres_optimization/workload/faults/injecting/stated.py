"""Faults as somebody states them: a preset, or tables of a file; and back, for a journal."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.faults.fault import Fault, FaultKind
from ml_postgres_optimization.workload.faults.injecting.schedule import FaultRate
from ml_postgres_optimization.workload.faults.kinds import (
    Deadlock,
    LineCut,
    LineDelay,
    LineSilence,
    LockStall,
    LostCommits,
    ServerCrash,
    ServerRestart,
    Termination,
)

_LEAST_EVERY_SECONDS, _MOST_EVERY_SECONDS = 1.0, 366 * 86_400.0
_MOST_FAULTS = 100
_LINE = frozenset({FaultKind.LINE_CUT, FaultKind.LINE_SILENCE, FaultKind.LINE_DELAY, FaultKind.LOST_COMMITS})
# Kind → what makes it, and the keys of its table beside kind and every.
_KINDS: Mapping[str, tuple[type[Any], tuple[str, ...]]] = {
    FaultKind.TERMINATION: (Termination, ("count", "seconds")),
    FaultKind.LOCK_STALL: (LockStall, ("seconds", "is_whole_table")),
    FaultKind.DEADLOCK: (Deadlock, ("count", "seconds")),
    FaultKind.RESTART: (ServerRestart, ("seconds",)),
    FaultKind.CRASH: (ServerCrash, ("way", "seconds")),
    FaultKind.LINE_CUT: (LineCut, ("seconds",)),
    FaultKind.LINE_SILENCE: (LineSilence, ("seconds",)),
    FaultKind.LINE_DELAY: (LineDelay, ("delay_seconds", "seconds")),
    FaultKind.LOST_COMMITS: (LostCommits, ("count", "seconds")),
}
_NOT_HERE: Mapping[str, str] = {
    FaultKind.READ_ONLY: "a runner that is killed would leave the database read-only",
    FaultKind.STANDBY: "there is no standby beside a test",
    FaultKind.EXHAUSTION: "it would take the connections by which the test observes the server, and others'",
    FaultKind.SERIALISATION: "under read committed, by which the load runs, nothing comes of it",
}


@dataclass(frozen=True, slots=True)
class FaultList:
    """Which faults come beside a load, and how often; one at a time.

    Parameters
    ----------
    tables : tuple of mapping
        Each with ``kind``, ``every`` (seconds from one to the next on average, of a Poisson process), and what the
        kind takes; plain values, which can be kept.

    Raises
    ------
    UsageError
        If a table is not understood; it says which, by its place from 1.

    Examples
    --------
    >>> FaultList(({"kind": "termination", "every": 600},)).rates[0].per_minute
    0.1
    """

    tables: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if len(self.tables) > _MOST_FAULTS:
            raise UsageError(f"There are {len(self.tables)} faults.", f"Choose at most {_MOST_FAULTS}.")
        _ = self.rates

    @property
    def rates(self) -> tuple[FaultRate, ...]:
        """Each fault at its rate."""
        return tuple(_rate(place, table) for place, table in enumerate(self.tables, 1))

    @property
    def kinds(self) -> tuple[FaultKind, ...]:
        """What comes, in the order of the tables."""
        return tuple(rate.fault.kind for rate in self.rates)

    @property
    def needs_line(self) -> bool:
        """Whether the load must reach the server by a line that can be cut."""
        return not _LINE.isdisjoint(self.kinds)

    def __str__(self) -> str:
        return ", ".join(f"{table['kind']} every {table['every']:g} s" for table in self.tables)


def _rate(place: int, table: object) -> FaultRate:
    if not isinstance(table, Mapping):
        raise UsageError(f"Fault {place} is {table!r:.60}; it is a table.", "Write [[faults]] and its keys.")
    kind = table.get("kind")
    if isinstance(kind, str) and kind in _NOT_HERE:
        raise UsageError(f"Fault {place}: {kind} is not for a test: {_NOT_HERE[kind]}.", f"Choose of {_known()}.")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UsageError(f"Fault {place} is of kind {kind!r:.60}.", f"Choose of {_known()}.")
    made_by, keys = _KINDS[kind]
    _check_keys(place, kind, table, ("kind", "every", *keys))
    every = table.get("every")
    is_number = isinstance(every, Real) and not isinstance(every, bool) and math.isfinite(every)
    if not (is_number and _LEAST_EVERY_SECONDS <= float(every) <= _MOST_EVERY_SECONDS):  # type: ignore[arg-type]
        raise UsageError(
            f"Fault {place} ({kind}) has every = {every!r:.60}.",
            f"Say the seconds from one to the next on average, {_LEAST_EVERY_SECONDS:g} or more, up to a year.",
        )
    fault: Fault = made_by(**{key: table[key] for key in keys if key in table})
    return FaultRate(fault, per_minute=60.0 / float(every))  # type: ignore[arg-type]


def _check_keys(place: int, kind: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"Did you mean {close[0]}?" if close else f"Choose of {', '.join(known)}."
            raise UsageError(f"Fault {place} ({kind}): {key!r} is not known.", hint)
        if isinstance(value, bool) != (key == "is_whole_table"):
            wanted = "true or false" if key == "is_whole_table" else "a number, or a word in quotes"
            raise UsageError(f"Fault {place} ({kind}) has {key} = {value!r:.60}.", f"Write {wanted}.")


def _known() -> str:
    return ", ".join(_KINDS)


NO_FAULTS = FaultList()
PRESETS: Mapping[str, FaultList] = {
    "light": FaultList(
        (
            {"kind": "termination", "every": 600, "count": 1, "seconds": 1},
            {"kind": "lock_stall", "every": 1800, "seconds": 0.5},
        )
    ),
    "hard": FaultList(
        (
            {"kind": "termination", "every": 60, "count": 1, "seconds": 1},
            {"kind": "lock_stall", "every": 300, "seconds": 1},
            {"kind": "deadlock", "every": 600, "count": 1, "seconds": 5},
            {"kind": "lost_commits", "every": 600, "count": 1, "seconds": 5},
            {"kind": "line_cut", "every": 1800, "seconds": 1},
            {"kind": "crash", "every": 3600, "way": "backend"},
            {"kind": "restart", "every": 7200, "seconds": 2},
        )
    ),
}
