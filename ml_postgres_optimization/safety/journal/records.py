"""What the journal says: records, their form on disk, and what they add up to."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ml_postgres_optimization.knobs.knob import KnobValue

# 3: a knob may be a setting of a role, which a program that knows only files would take for one that is gone.
FORMAT = 3


class RecordKind(StrEnum):
    """What happened to a trial."""

    INTENT = "intent"
    ARMED = "armed"
    APPLIED = "applied"
    VERIFIED = "verified"
    WITHDRAWN = "withdrawn"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    REOPENED = "reopened"


# What may come after what. Only a confirmed trial can be reopened, by a rollback.
_OPEN = frozenset(
    {RecordKind.INTENT, RecordKind.ARMED, RecordKind.APPLIED, RecordKind.VERIFIED, RecordKind.WITHDRAWN}
)
_FOLLOWS: Mapping[RecordKind, frozenset[RecordKind]] = {
    RecordKind.ARMED: _OPEN,
    RecordKind.APPLIED: _OPEN,
    RecordKind.VERIFIED: frozenset({RecordKind.APPLIED}),
    RecordKind.WITHDRAWN: _OPEN,
    RecordKind.CONFIRMED: _OPEN,
    RecordKind.REVERTED: _OPEN | {RecordKind.REOPENED},
    RecordKind.REOPENED: frozenset({RecordKind.CONFIRMED}),
}


@dataclass(frozen=True, slots=True)
class KnobChange:
    """One knob of an intent.

    Parameters
    ----------
    name : str
    old_written : str or None
        What ``postgresql.auto.conf`` said before, as it stood there; None when it said nothing.
    old_value, new_value : KnobValue
        In force before, and to be tried, in base units.
    """

    name: str
    old_written: str | None
    old_value: KnobValue
    new_value: KnobValue


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what a trial is held.

    Parameters
    ----------
    by : tuple of str
        Who stands by.
    epoch : str
        The session that alone may change settings.
    longest_seconds : float
        After so long from now on it is put back.
    """

    by: tuple[str, ...]
    epoch: str
    longest_seconds: float


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal.

    Parameters
    ----------
    kind : RecordKind
    trial_id : str
    at : str
        Wall time, ISO 8601 in UTC.
    pid : int
        The process that wrote it.
    knobs : tuple of KnobChange
        Of an intent; empty otherwise.
    foreign : mapping of str to str
        Knobs that somebody else changed meanwhile, and that were left alone → what they say now.
    terms : Terms or None
        Once armed.
    format : int
        In which it was written.
    """

    kind: RecordKind
    trial_id: str
    at: str
    pid: int
    knobs: tuple[KnobChange, ...] = ()
    foreign: Mapping[str, str] = field(default_factory=dict)
    terms: Terms | None = None
    format: int = field(default_factory=lambda: FORMAT)


def content_of(record: Record) -> dict[str, Any]:
    """Return a record as JSON has it."""
    content: dict[str, Any] = {
        "format": record.format,
        "kind": record.kind,
        "trial": record.trial_id,
        "at": record.at,
        "pid": record.pid,
    }
    if record.knobs:
        content["knobs"] = [
            {"name": knob.name, "old_written": knob.old_written, "old": knob.old_value, "new": knob.new_value}
            for knob in record.knobs
        ]
    if record.foreign:
        content["foreign"] = dict(record.foreign)
    if terms := record.terms:
        longest = terms.longest_seconds if math.isfinite(terms.longest_seconds) else None
        content["terms"] = {"by": list(terms.by), "epoch": terms.epoch, "longest_seconds": longest}
    return content


def encoded(record: Record) -> bytes:
    """Return the line of `record`: its length, its CRC-32 and the JSON itself, ended by a newline."""
    body = json.dumps(content_of(record), separators=(",", ":")).encode()
    return b"%08d %08x %s\n" % (len(body), zlib.crc32(body), body)


@dataclass(frozen=True, slots=True)
class JournalledTrial:
    """What the journal knows of a trial.

    Parameters
    ----------
    intent : Record
    status : RecordKind
        The last thing that happened to it.
    """

    intent: Record
    status: RecordKind

    @property
    def is_finished(self) -> bool:
        """Whether nothing of it needs to be put back."""
        return self.status in {RecordKind.CONFIRMED, RecordKind.REVERTED}


@dataclass(frozen=True, slots=True)
class JournalState:
    """What all records add up to.

    Parameters
    ----------
    trials : mapping of str to JournalledTrial
        By trial id, in the order of their intents.
    """

    trials: Mapping[str, JournalledTrial] = field(default_factory=dict)

    @property
    def unfinished(self) -> tuple[JournalledTrial, ...]:
        """Trials that may still be in force without having been confirmed."""
        return tuple(trial for trial in self.trials.values() if not trial.is_finished)

    @property
    def confirmed(self) -> tuple[JournalledTrial, ...]:
        """Trials that were left in force, oldest first."""
        return tuple(trial for trial in self.trials.values() if trial.status is RecordKind.CONFIRMED)

    def after(self, record: Record) -> JournalState:
        """Return the state that `record` leads to.

        Raises
        ------
        ValueError
            If it does not follow from what came before.
        """
        trial = self.trials.get(record.trial_id)
        if record.kind is RecordKind.INTENT:
            if trial:
                raise ValueError(f"trial {record.trial_id} was begun before")
            return JournalState({**self.trials, record.trial_id: JournalledTrial(record, record.kind)})
        if trial is None or trial.status not in _FOLLOWS[record.kind]:
            before = trial.status if trial else "nothing"
            raise ValueError(f"{record.kind} of trial {record.trial_id} cannot follow {before}")
        return JournalState({**self.trials, record.trial_id: replace(trial, status=record.kind)})


def replayed(records: Iterable[Record]) -> JournalState:
    """Return what `records` add up to.

    Raises
    ------
    ValueError
        If one does not follow from those before it.
    """
    state = JournalState()
    for record in records:
        state = state.after(record)
    return state
