"""What happened, on the time axis of the plots: a lane for each kind of event.

Whatever is to stand on the axis is an `Event`, from the journal or found in the counters: its kind alone says which
lane it has here, whether it goes through all plots (`plot.MARKED_IN_PLOTS`), and what the style sheet calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from ml_postgres_optimization.interfaces.report.page import escaped
from ml_postgres_optimization.interfaces.report.soak.plot import Ground, bands, time_labels, word
from ml_postgres_optimization.soak.interval import Event, EventKind

_TITLES = {
    EventKind.CONFIGURATION: "Settings",
    EventKind.FAULT: "Faults",
    EventKind.INTEGRITY: "Integrity",
    EventKind.PLAN: "Plans",
    EventKind.SERVER: "Server",
    EventKind.RUNNER: "Runner",
    EventKind.CLOCK: "Clock",
    EventKind.DISK: "Disk",
    EventKind.MEMORY: "Memory",
    EventKind.CHECKPOINT: "Checkpoints",
    EventKind.REQUESTED_CHECKPOINT: "asked for",
}
_MOST_MARKS = 1000
# What comes by itself, and often: in its lane and in the JSON, not among the events in words.
_ROUTINE = frozenset({EventKind.CHECKPOINT, EventKind.REQUESTED_CHECKPOINT})


def render_lanes(ground: Ground) -> str:
    """Return the lanes as HTML; a kind that did not occur has none."""
    lanes = []
    for kind, title in _TITLES.items():
        events = [event for event in ground.events if event.kind is kind]
        if events:
            marks = "".join(_marks(events, ground))
            lanes.append(
                f'<div class="lane"><b>{title}</b><div class="track" role="img" '
                f'aria-label="{title}: {len(events)}">{marks}</div></div>'
            )
    measured = f'<div class="lane"><b>Measured</b><div class="track whole">{bands(ground)}</div></div>'
    return f'<div class="lanes">{"".join(lanes)}{measured}{time_labels(ground.time)}</div>'


def _marks(events: Sequence[Event], ground: Ground) -> Iterator[str]:
    """Yield a mark for each event, or one for all that begin where no eye can tell them apart."""
    for _, close in groupby(events, key=lambda event: int(ground.time.share_at(event.at) * _MOST_MARKS)):
        together = [*close]
        first, last = together[0], max(together, key=_end)
        left, right = ground.time.share_at(first.at), ground.time.share_at(_end(last))
        text = first.text if len(together) == 1 else f"{len(together)}, the first: {first.text}"
        title = escaped(f"{first.at:%d %b %H:%M} {text}")
        yield (
            f'<i class="event {word(first.kind.value)}" style="left:{left:.3%};width:{right - left:.3%}" '
            f'title="{title}"></i>'
        )


def _end(event: Event) -> datetime:
    return event.until or event.at


def listed(events: Sequence[Event], most: int) -> tuple[list[Event], int]:
    """Return the events that a reader is shown in words, and how many are left out: checkpoints first of all."""
    told = [event for event in events if event.kind not in _ROUTINE]
    return told[:most], len(events) - len(told[:most])
