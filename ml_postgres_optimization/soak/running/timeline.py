"""Where a run is on its grid of intervals, and what the clocks say of the machine."""

from __future__ import annotations

from datetime import timedelta

from ml_postgres_optimization.soak.interval import Event, EventKind
from ml_postgres_optimization.soak.journal import ClockMark, RunDescription
from ml_postgres_optimization.telemetry import BootClock

# NTP slews by at most 500 ppm, 5 ms in ten seconds; what is more was stepped, and what is less is not worth a mark.
_NOTABLE_SECONDS = 1.0
_ROUNDING_SECONDS = 1e-6


class Timeline:
    """Time as the run counts it: from its start, sleep included, whatever becomes of the wall clock.

    Parameters
    ----------
    clock : BootClock
    description : RunDescription
    mark : ClockMark, optional
        Of the last record of a run that goes on.
    boot : str
        Name of this boot of the machine; empty where it has none.

    Notes
    -----
    Within one boot the time since the last record is that of the boot clock, so that a wall clock which was stepped
    meanwhile is seen. After a reboot only the wall clock knows it.
    """

    def __init__(
        self, clock: BootClock, description: RunDescription, mark: ClockMark | None = None, *, boot: str = ""
    ) -> None:
        self._clock = clock
        self._description = description
        self._boot = boot
        self.offset_seconds = mark.offset_seconds if mark else 0.0
        by_wall = self._by_wall_seconds()
        self._from_seconds = by_wall
        self.was_rebooted = False
        if mark and mark.boot == boot != "":
            self._from_seconds = mark.elapsed_seconds + clock.boottime_seconds() - mark.boottime_seconds
        elif mark and mark.elapsed_seconds:
            self.was_rebooted = boot != "" != mark.boot
            self._from_seconds = max(by_wall, mark.elapsed_seconds)
        self._boottime_seconds = clock.boottime_seconds()
        self._behind_seconds = self._boottime_seconds - clock.monotonic_seconds()

    @property
    def elapsed_seconds(self) -> float:
        """Time since the run began."""
        return self._from_seconds + self._clock.boottime_seconds() - self._boottime_seconds

    @property
    def number(self) -> int:
        """The interval of this moment."""
        return int((self.elapsed_seconds + _ROUNDING_SECONDS) // self._description.interval_seconds)

    def monotonic_end(self, number: int) -> float:
        """Return when an interval ends, in monotonic seconds; the last one with the run."""
        length = self._description.interval_seconds
        end = min((number + 1) * length, max(self._description.duration_seconds, number * length))
        return self._clock.monotonic_seconds() + end - self.elapsed_seconds

    def mark(self) -> ClockMark:
        """Return where the clocks stand."""
        return ClockMark(self._boot, self._clock.boottime_seconds(), self.elapsed_seconds, self.offset_seconds)

    def look(self) -> tuple[tuple[Event, ...], float]:
        """Return what has happened to the clocks since the last look, and how long the machine slept."""
        events = []
        behind = self._clock.boottime_seconds() - self._clock.monotonic_seconds()
        slept, self._behind_seconds = behind - self._behind_seconds, behind
        now = self._clock.now()
        if slept > _NOTABLE_SECONDS:
            woke_at = now - timedelta(seconds=slept)
            events.append(Event(EventKind.CLOCK, f"The machine slept for {slept:,.0f} s.", woke_at, now))
        stepped = self._by_wall_seconds() - self.elapsed_seconds
        if abs(stepped) > _NOTABLE_SECONDS:
            self.offset_seconds += stepped
            way = "forward" if stepped > 0 else "back"
            events.append(Event(EventKind.CLOCK, f"The wall clock was set {way} by {abs(stepped):,.0f} s.", now))
        return tuple(events), slept if slept > _NOTABLE_SECONDS else 0.0

    def _by_wall_seconds(self) -> float:
        return (self._clock.now() - self._description.started_at).total_seconds() - self.offset_seconds
