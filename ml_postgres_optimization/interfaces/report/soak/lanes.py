"""What happened, on the time axis of the plots: a lane for each kind of event."""

from __future__ import annotations

from collections.abc import Sequence

from ml_postgres_optimization.interfaces.report.page import escaped
from ml_postgres_optimization.interfaces.report.soak.plot import Ground, bands, time_labels
from ml_postgres_optimization.soak.interval import Event, EventKind

_TITLES = {
    EventKind.CONFIGURATION: "Settings",
    EventKind.FAULT: "Faults",
    EventKind.INTEGRITY: "Integrity",
    EventKind.SERVER: "Server",
    EventKind.RUNNER: "Runner",
    EventKind.CLOCK: "Clock",
    EventKind.DISK: "Disk",
    EventKind.CHECKPOINT: "Checkpoints",
}


def render_lanes(ground: Ground) -> str:
    """Return the lanes as HTML; a kind that did not occur has none."""
    lanes = []
    for kind, title in _TITLES.items():
        events = [event for event in ground.events if event.kind is kind]
        if events:
            marks = "".join(_mark(event, ground) for event in events)
            lanes.append(
                f'<div class="lane"><b>{title}</b><div class="track" role="img" '
                f'aria-label="{title}: {len(events)}">{marks}</div></div>'
            )
    measured = f'<div class="lane"><b>Measured</b><div class="track whole">{bands(ground)}</div></div>'
    return f'<div class="lanes">{"".join(lanes)}{measured}{time_labels(ground.time)}</div>'


def _mark(event: Event, ground: Ground) -> str:
    left = ground.time.share_at(event.at)
    right = ground.time.share_at(event.until) if event.until else left
    title = escaped(f"{event.at:%d %b %H:%M} {event.text}")
    return (
        f'<i class="event {event.kind.value}" style="left:{left:.3%};width:{right - left:.3%}" title="{title}"></i>'
    )


def listed(events: Sequence[Event], most: int) -> tuple[list[Event], int]:
    """Return the events that a reader is shown in words, and how many are left out: checkpoints first of all."""
    told = [event for event in events if event.kind is not EventKind.CHECKPOINT]
    return told[:most], len(events) - len(told[:most])
