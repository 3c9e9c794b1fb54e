"""A window as rows of the database, and back, without loss."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb

from ml_postgres_optimization.retry.classification import error_class
from ml_postgres_optimization.target.postgres.repository.records import SlowerPart
from ml_postgres_optimization.telemetry import (
    Histogram,
    OperationWindow,
    StatementCounters,
    StatementKey,
    Window,
)
from ml_postgres_optimization.telemetry.export import operation_figures, window_figures


def window_parameters(window: Window) -> dict[str, object]:
    """Return the parameters of ``repository/add_window.sql``."""
    return {
        **window_figures(window),
        "id": _identity(window),
        "labels": Jsonb(dict(window.labels)),
        "rates": numbers(window.rates),
        "gauges": numbers(window.gauges),
        "waits": numbers(window.waits),
        "errors": Jsonb(dict(window.errors)),
        "retried": Jsonb(dict(window.retried)),
        "ambiguous_total": window.ambiguous_total,
        "error_classes": sorted({error_class(code).value for code in window.errors}),
        "statements": Jsonb(_statement_rows(window.statements)),
        "unseen": Jsonb(dict(window.unseen)),
        "lag": Jsonb(_stored(window.lag)),
        "operations": Jsonb([_operation_row(kind, part) for kind, part in window.operations.items()]),
    }


def window_of(row: Mapping[str, Any]) -> Window:
    """Rebuild a window from a row of ``repository/windows.sql``."""
    return Window(
        started_at=in_utc(row["started_at"]),
        ended_at=in_utc(row["ended_at"]),
        configuration_id=row["configuration_id"],
        labels=row["labels"],
        rates=floats(row["rates"]),
        gauges=floats(row["gauges"]),
        waits=floats(row["waits"]),
        operations={
            kind: OperationWindow(
                _histogram_of(part["response"]), _histogram_of(part["service"]), part["failed_total"]
            )
            for kind, part in (row["operations"] or {}).items()
        },
        lag=_histogram_of(row["lag"]) if row["lag"] else Histogram.empty(),
        errors=row["errors"],
        skipped_total=row["skipped_total"],
        retried=row["retried"],
        ambiguous_total=row["ambiguous_total"],
        statements=dict(map(_statement_of, row["statements"])),
        unseen=row["unseen"],
        server=row["server"],
    )


def numbers(values: Mapping[str, float]) -> Jsonb:
    """Return numbers as JSON; NaN and infinity, which JSON does not have, as text."""
    return Jsonb({name: value if math.isfinite(value) else str(value) for name, value in values.items()})


def floats(stored: Mapping[str, float | str]) -> dict[str, float]:
    """Rebuild what `numbers` gave."""
    return {name: float(value) for name, value in stored.items()}


def slower_parts(parts: Sequence[SlowerPart]) -> Jsonb:
    """Return parts of the load as JSON, infinity as text."""
    return Jsonb([{"part": part.part} | numbers(_figures_of(part)).obj for part in parts])


def slower_parts_of(stored: Sequence[Mapping[str, Any]]) -> tuple[SlowerPart, ...]:
    """Rebuild what `slower_parts` gave."""
    return tuple(
        SlowerPart(part["part"], **floats({name: part[name] for name in part if name != "part"})) for part in stored
    )


def _figures_of(part: SlowerPart) -> dict[str, float]:
    return {name: value for name, value in part._asdict().items() if name != "part"}


def in_utc(instant: datetime) -> datetime:
    """Return the same instant as every clock of ours tells it."""
    return instant.astimezone(UTC)


def _identity(window: Window) -> int:
    """Return the same number for the same window, so that adding it again, after a lost answer, changes nothing."""
    facts = [
        in_utc(window.started_at).isoformat(),
        in_utc(window.ended_at).isoformat(),
        window.configuration_id,
        sorted(window.labels.items()),
        *([] if window.server is None else [window.server]),
    ]
    return int.from_bytes(hashlib.sha256(json.dumps(facts).encode()).digest()[:8], "big") >> 1


def _stored(histogram: Histogram) -> dict[str, object]:
    """Return the fields of type genesis.histogram: gaps filled with zeros take less room than a list of buckets."""
    filled = np.flatnonzero(histogram.counts)
    first, last = (int(filled[0]), int(filled[-1])) if filled.size else (0, -1)
    return {
        "first_bucket": first,
        "counts": histogram.counts[first : last + 1].tolist(),
        "sum_seconds": histogram.sum_seconds,
        "max_seconds": histogram.max_seconds,
    }


def _histogram_of(stored: Mapping[str, Any]) -> Histogram:
    first, counts = stored["first_bucket"], stored["counts"]
    return Histogram.from_json({**stored, "buckets": range(first, first + len(counts))})


def _operation_row(kind: str, part: OperationWindow) -> dict[str, object]:
    return {
        **operation_figures(part),
        "kind": kind,
        "response": _stored(part.response),
        "service": _stored(part.service),
    }


def _statement_rows(statements: Mapping[StatementKey, StatementCounters]) -> list[list[float]]:
    """Return one short list for each statement; view statement_windows names its places."""
    return [
        [*key, *(getattr(counters, name) for name in StatementCounters.__slots__)]
        for key, counters in statements.items()
    ]


def _statement_of(stored: list[float]) -> tuple[StatementKey, StatementCounters]:
    queryid, user, database, calls, execution_seconds, rows, read, hit, written, wal_bytes = stored
    counters = StatementCounters(
        calls_total=int(calls),
        execution_seconds_total=float(execution_seconds),
        rows_total=int(rows),
        shared_blocks_read_total=int(read),
        shared_blocks_hit_total=int(hit),
        temp_blocks_written_total=int(written),
        wal_bytes_total=float(wal_bytes),
    )
    return (int(queryid), int(user), int(database)), counters
