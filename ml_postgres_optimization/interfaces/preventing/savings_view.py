"""What prevention has saved, for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ml_postgres_optimization.interfaces.reporter import Table
from ml_postgres_optimization.target.postgres.repository import PreventionRecord
from ml_postgres_optimization.tuning.preventing import Choice, Saving, Tally, savings


def prevention_json(records: Sequence[PreventionRecord], *, limit: int) -> dict[str, object]:
    """Return what was saved, and the last occasions, the newest first."""
    return {
        "occasions": len(records),
        "savings": [_saving_json(saving) for saving in savings(records)],
        "last": [_occasion_json(record) for record in list(reversed(records))[:limit]],
    }


def prevention_tables(records: Sequence[PreventionRecord]) -> list[Table]:
    """Return a row for each class of errors of which there was an occasion; no table where there was none."""
    if not records:
        return []
    found = {saving.error_class: saving for saving in savings(records)}
    empty = (Saving(name, Tally(), Tally()) for name in sorted({record.error_class for record in records}))
    rows = [_row(found.get(saving.error_class, saving), records) for saving in empty]
    columns = ("errors", "acted", "held out", "advised", "came in", "per 1,000", "undone", "spoilt", "saved", "shown")
    return [Table("What prevention saved: occasions acted on / held out at random", columns, rows)]


def _row(saving: Saving, records: Sequence[PreventionRecord]) -> tuple[str, ...]:
    acted, held_out = saving.acted, saving.held_out
    of_class = [record for record in records if record.error_class == saving.error_class]
    return (
        saving.error_class,
        str(acted.occasions),
        str(held_out.occasions),
        str(sum(record.choice == Choice.ADVISED for record in of_class)),
        f"{_percent(acted.error_share)} / {_percent(held_out.error_share)}",
        f"{_plain(acted.errors_per_1000)} / {_plain(held_out.errors_per_1000)}",
        f"{_percent(acted.undone_share)} / {_percent(held_out.undone_share)}",
        f"{_percent(acted.share)} / {_percent(held_out.share)}",
        _saved(saving),
        saving.verdict,
    )


def _saved(saving: Saving) -> str:
    """Return what was saved, as a share of the occasions: the difference with its sign turned round."""
    value, low, high = saving.difference
    if math.isnan(value):
        return "–"
    return f"{-value:+.0%} ({-high:+.0%} to {-low:+.0%})"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.0%}"


def _plain(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _saving_json(saving: Saving) -> dict[str, object]:
    return {
        "error_class": saving.error_class,
        "verdict": saving.verdict,
        "difference": {name: _known(value) for name, value in saving.difference._asdict().items()},
        "acted": _tally_json(saving.acted),
        "held_out": _tally_json(saving.held_out),
    }


def _tally_json(tally: Tally) -> dict[str, object]:
    return {
        "occasions": tally.occasions,
        "with_errors": tally.with_errors,
        "spoilt": tally.spoilt,
        "due": tally.due,
        "undone": tally.undone,
        "errors": tally.errors,
        "operations": tally.operations,
        "errors_per_1000": _known(tally.errors_per_1000),
        "mean_seconds": _known(tally.mean_seconds),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _occasion_json(record: PreventionRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "began_at": record.began_at.isoformat(),
        "ended_at": record.ended_at.isoformat() if record.ended_at else None,
        "error_class": record.error_class,
        "probability": record.probability,
        "threshold": record.threshold,
        "source": record.source,
        "choice": record.choice,
        "lever": record.lever,
        "deed": record.deed,
        "ending": record.ending,
        "errors": record.errors,
        "operations": record.operations,
        "due": record.due,
        "undone": record.undone,
        "is_whole": record.is_whole,
    }
