"""What happened on the server, as its counters show it: checkpoints, and processes killed for want of memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ml_postgres_optimization.soak.interval import Event, EventKind, Interval
from ml_postgres_optimization.telemetry import Window

_SERVER_KILLS = "host.cgroup_oom_kills_per_second"
_MACHINE_KILLS = "host.oom_kills_per_second"
_COUNTED = "checkpointer.write_seconds_per_second"
# Rates are kept with seven digits.
_ONE = 0.5


class Happenings:
    """Find what happened in intervals that are shown one after the other; moments are as exact as an interval.

    Notes
    -----
    A checkpoint is counted when it begins; the time that it took to write is added when it ends. So it lasts from the
    interval in which a count grew to the one in which that time did. One that began before the run, or whose end fell
    into a gap, is not told, nor is one that an idle server skipped: it takes no time.

    References
    ----------
    PostgreSQL's source: ``CheckpointerMain`` counts, ``LogCheckpointEnd`` adds the times.
    """

    def __init__(self) -> None:
        self._under_way: tuple[datetime, EventKind] | None = None

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
        begun = (window.started_at, EventKind.REQUESTED_CHECKPOINT if requested >= _ONE else EventKind.CHECKPOINT)
        has_begun, has_ended = timed + requested >= _ONE, write + sync > 0
        before, self._under_way = self._under_way, begun if has_begun and not has_ended else None
        if not has_ended:
            self._under_way = self._under_way or before
        elif before or has_begun:
            at, kind = before or begun
            yield Event(kind, _checkpoint_text(kind, write, sync), at, window.ended_at)
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
