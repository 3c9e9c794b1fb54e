"""Intervals, and the coming and going of runners, as payloads of records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal.columns import packed, unpacked, window_columns, window_of
from ml_postgres_optimization.soak.journal.framing import Framed, RecordKind
from ml_postgres_optimization.soak.journal.state import ClockMark, Ending, RunState, Totals

# Years of seconds: a span beyond it is damage, and is not believed.
_WIDEST_SPAN = 1 << 28


@dataclass(frozen=True, slots=True)
class Begun:
    """A runner has taken the run over.

    Parameters
    ----------
    epoch : int
    at : datetime
    number : int
        Of the interval that it begins in; -1 where nobody knows.
    lost_until : int
        Last interval that the runner before had in memory only, or was in, as far as is known; -1 where nobody knows.
    """

    epoch: int
    at: datetime
    number: int = -1
    lost_until: int = -1


@dataclass(frozen=True, slots=True)
class Measured:
    """An interval, and how the whole stands after it.

    Parameters
    ----------
    interval : Interval
    totals : Totals
    mark : ClockMark
    span : tuple of (int, int), optional
        First and last number that it stands for: others than its own where its runner was held up, so that the
        window has what happened in all of them.
    """

    interval: Interval
    totals: Totals
    mark: ClockMark
    span: tuple[int, int] | None = None

    @property
    def numbers(self) -> range:
        """All numbers that it stands for."""
        first, last = self.span or (self.interval.number, self.interval.number)
        return range(first, last + 1)


@dataclass(frozen=True, slots=True)
class Left:
    """A runner has left the run in good order.

    Parameters
    ----------
    ending : Ending
    at : datetime
    text : str
        Why, for readers.
    is_settled : bool or None
        Whether the ledger of operations was found to balance after the load's end; None where nobody was to look.
    """

    ending: Ending
    at: datetime
    text: str = ""
    is_settled: bool | None = None


Entry = Begun | Measured | Left


def payload_of(entry: Entry) -> tuple[RecordKind, bytes]:
    """Return the kind and the bytes of an entry."""
    match entry:
        case Begun():
            begun = {"epoch": entry.epoch, "at": entry.at.isoformat(), "number": entry.number}
            return RecordKind.EPOCH, packed(begun | {"lost_until": entry.lost_until})
        case Left():
            content = {"ending": entry.ending.value, "at": entry.at.isoformat(), "text": entry.text}
            return RecordKind.END, packed(content | {"settled": entry.is_settled})
    return RecordKind.INTERVAL, _measured_payload(entry)


def _measured_payload(entry: Measured) -> bytes:
    interval = entry.interval
    window, blob = (None, b"") if interval.window is None else window_columns(interval.window)
    content = {
        "number": interval.number,
        "epoch": interval.epoch,
        "state": interval.state.value,
        "at": [interval.started_at.isoformat(), interval.ended_at.isoformat()],
        "window": window,
        "resources": {name: float(f"{value:.7g}") for name, value in interval.resources.items()},
        "events": [_event_json(event) for event in interval.events],
        "totals": asdict(entry.totals),
        "mark": asdict(entry.mark),
    } | ({"span": entry.span} if len(entry.numbers) > 1 else {})
    return packed(content, blob)


def entry_of(record: Framed) -> Entry:
    """Rebuild an entry.

    Raises
    ------
    ValueError
        If the payload holds anything else than `payload_of` wrote.
    """
    try:
        content, blob = unpacked(record.payload)
        if record.kind is RecordKind.EPOCH:
            at = datetime.fromisoformat(content["at"])
            return Begun(content["epoch"], at, content.get("number", -1), content.get("lost_until", -1))
        if record.kind is RecordKind.END:
            at, settled = datetime.fromisoformat(content["at"]), content.get("settled")
            return Left(Ending(content["ending"]), at, content["text"], settled)
        return _measured(content, blob)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"a record lacks something: {error}") from error


def state_after(state: RunState, entry: Entry) -> RunState:
    """Return how far the run has come after an entry."""
    match entry:
        case Begun():
            return state.began(entry.epoch, entry.at, entry.number)
        case Measured():
            return replace(state.after(entry.interval, entry.totals, entry.mark), last_number=entry.numbers[-1])
    return state.left(entry.ending, entry.at, is_settled=entry.is_settled)


def _measured(content: Mapping[str, Any], blob: bytes) -> Measured:
    started_at, ended_at = map(datetime.fromisoformat, content["at"])
    interval = Interval(
        number=content["number"],
        epoch=content["epoch"],
        state=IntervalState(content["state"]),
        started_at=started_at,
        ended_at=ended_at,
        window=None if content["window"] is None else window_of(content["window"], blob),
        resources=content["resources"],
        events=tuple(_event(event) for event in content["events"]),
    )
    totals, mark, span = Totals(**content["totals"]), ClockMark(**content["mark"]), content.get("span")
    return Measured(interval, totals, mark, None if span is None else _span(span, interval.number))


def _span(told: list[Any], number: int) -> tuple[int, int]:
    first, last = told
    if not 0 <= first <= number <= last < first + _WIDEST_SPAN:
        raise ValueError(f"interval {number} cannot stand for {first} to {last}")
    return first, last


def _event_json(event: Event) -> list[str | None]:
    until = None if event.until is None else event.until.isoformat()
    return [event.kind.value, event.text, event.at.isoformat(), until]


def _event(content: list[Any]) -> Event:
    kind, text, at, until = content
    return Event(
        EventKind(kind), text, datetime.fromisoformat(at), None if until is None else datetime.fromisoformat(until)
    )
