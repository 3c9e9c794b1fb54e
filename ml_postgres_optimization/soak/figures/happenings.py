"""What happened on the server, as its counters show it: checkpoints, and processes killed for want of memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ml_postgres_optimization.soak.interval import Event, EventKind, Interval
from ml_postgres_optimization.telemetry import Window

_SERVER_KILLS = "host.cgroup_oom_kills_per_second"
_MACHINE_KILLS = "host.oom_kills_per_second"
_COUNTED = "checkpointer.write_seconds_per_second"
# Rates are kept with seven digits.
_ONE = 0.5
# Of a checkpoint's time, at least so much is writing and syncing; the rest is waiting for others, and old WAL.
_LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class _Begun:
    """A checkpoint that began between two moments."""

    at: datetime
    until: datetime
    kind: EventKind

    def can_end(self, window: Window, seconds: float) -> bool:
        """Whether it can be the one that ended in `window`, and took so long to write and sync."""
        return seconds >= _LEAST_SHARE * (window.started_at - self.until).total_seconds()


class Happenings:
    """Find what happened in intervals that are shown one after the other; moments are as exact as an interval.

    Notes
    -----
    A checkpoint is counted when it begins; the time that it took to write is added when it ends. So it lasts from the
    interval in which a count grew to the one in which that time did. One that began before the run, or whose end fell
    into a gap, is not told, nor is one that an idle server skipped: it takes no time, and is forgotten when the next
    one begins. Where one begins and one ends in an interval, it is the same one if its time is too short for that
    before: writing and syncing, pauses included, are nearly all of a checkpoint.

    References
    ----------
    PostgreSQL's source: ``CheckpointerMain`` counts, one after the other, ``LogCheckpointEnd`` adds the times;
    ``CreateCheckPoint`` returns before that where nothing was written since the last one.
    """

    def __init__(self) -> None:
        self._under_way: _Begun | None = None

    def seen_in(self, interval: Interval) -> Iterator[Event]:
        """Yield what ended in the interval, or happened at a moment of it."""
        window = interval.window
        if window is None:
            self._under_way = None
            return
        if _COUNTED in window.rates:
            yield from self._checkpoints(window)
        else:  # the server was away, or its counters were reset
            self._under_way = None
        yield from _kills(window)

    def _checkpoints(self, window: Window) -> Iterator[Event]:
        seconds, rates = window.duration_seconds, window.rates
        timed, requested, write, sync = (
            rates.get(f"checkpointer.{name}_per_second", 0.0) * seconds
            for name in ("timed_checkpoints", "requested_checkpoints", "write_seconds", "sync_seconds")
        )
        kind = EventKind.REQUESTED_CHECKPOINT if requested >= _ONE else EventKind.CHECKPOINT
        begun = _Begun(window.started_at, window.ended_at, kind)
        has_begun, has_ended = timed + requested >= _ONE, write + sync > 0
        before, self._under_way = self._under_way, begun if has_begun and not has_ended else None
        if before and has_begun and not before.can_end(window, write + sync):
            before = None
        if not has_ended:
            self._under_way = self._under_way or before
        elif before or has_begun:
            ended = before or begun
            yield Event(ended.kind, _checkpoint_text(ended.kind, write, sync), ended.at, window.ended_at)
            # the next one began at once, and is still under way; several within one interval are told as one
            self._under_way = begun if before and has_begun else None


def _checkpoint_text(kind: EventKind, write_seconds: float, sync_seconds: float) -> str:
    why = "by time" if kind is EventKind.CHECKPOINT else "asked for, by the WAL's size or by somebody"
    return f"Checkpoint {why}: {write_seconds:.3g} s of writing, {sync_seconds:.3g} s of syncing."


def _kills(window: Window) -> Iterator[Event]:
    for name, where in (
        (_SERVER_KILLS, "in the server's control group"),
        (_MACHINE_KILLS, "on the server's machine"),
    ):
        killed = round(window.rates.get(name, 0.0) * window.duration_seconds)
        if killed:
            text = f"The kernel killed {killed} processes {where} for want of memory."
            yield Event(EventKind.MEMORY, text, window.started_at, window.ended_at)
            return
