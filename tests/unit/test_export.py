"""The flat table of windows, and its files."""

import os
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from ml_postgres_optimization.telemetry import Histogram, OperationWindow, StatementCounters, Window
from ml_postgres_optimization.telemetry.export import (
    COLUMN_FAMILIES,
    COLUMNS,
    window_frame,
    write_csv,
    write_parquet,
)

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
WRITERS = {write_csv: pd.read_csv, write_parquet: pd.read_parquet}


def window(number=0, **changes):
    facts = {
        "started_at": START + timedelta(seconds=10 * number),
        "ended_at": START + timedelta(seconds=10 * number + 10),
        "configuration_id": "abc",
        "labels": {"run": "r1", "level": "HIGH", "shard": "7"},
        "rates": {"database.commits_per_second": 3.0},
        "gauges": {"activity.connections": 4.0},
        "waits": {"CPU": 1.5, "Lock": 0.5},
        "operations": {"read": OperationWindow(Histogram.of([0.001, 0.003]), Histogram.of([0.001, 0.001]), 1)},
        "errors": {"40001": 1},
        "skipped_total": 2,
        "statements": {(1, 2, 3): StatementCounters(4, 2.0, 4, 0, 0, 0, 0.0)},
        "unseen": {"io": "not before 16"},
    }
    return Window(**facts | changes)


def test_a_window_is_a_row_with_its_figures():
    (row,) = window_frame([window()]).to_dict("records")
    assert row["duration_seconds"] == 10
    assert (row["operations_total"], row["failed_total"], row["skipped_total"]) == (2, 1, 2)
    assert (row["error_ratio"], row["throughput_per_second"]) == (0.5, 0.1)
    assert row["mean_response_seconds"] == pytest.approx(0.002)
    assert row["max_response_seconds"] == pytest.approx(0.003)
    assert row["mean_service_seconds"] == pytest.approx(0.001)
    assert (row["statement_calls_total"], row["mean_statement_seconds"]) == (4, 0.5)
    assert row["active_sessions"] == 2.0
    assert row["operation.read.p99_response_seconds"] == pytest.approx(0.003)
    assert row["rate.database.commits_per_second"] == 3.0
    assert row["gauge.activity.connections"] == 4.0
    assert (row["wait.CPU_sessions"], row["error.40001_total"], row["label.shard"]) == (1.5, 1, "7")
    assert row["unseen"] == "io: not before 16"
    (row,) = window_frame([window(retried={"57P01": 3}, ambiguous_total=1)]).to_dict("records")
    assert (row["retried.57P01_total"], row["ambiguous_total"]) == (3, 1)


def test_every_column_is_documented():
    frame = window_frame([window(), window(1, operations={"write": window().operations["read"]})])
    assert list(frame.columns)[: len(COLUMNS)] == list(COLUMNS)
    families = {family.partition(".")[0] for family in COLUMN_FAMILIES}
    assert {name.partition(".")[0] for name in frame.columns[len(COLUMNS) :]} <= families


def test_what_was_not_measured_is_empty_and_not_zero():
    bare = Window(START, START + timedelta(seconds=10), "abc")
    frame = window_frame([window(), bare])
    measured = ["started_at", "ended_at", "duration_seconds", "configuration_id"]
    counted = ["operations_total", "failed_total", "skipped_total"]
    assert frame.loc[1, counted].tolist() == [0, 0, 0]
    assert frame.loc[1].drop([*measured, *counted]).isna().all()


def test_rows_keep_their_order_and_columns_do_not_depend_on_it():
    forward = window_frame([window(0), window(1, rates={"a.b_per_second": 1.0})])
    backward = window_frame([window(1, rates={"a.b_per_second": 1.0}), window(0)])
    assert list(forward.columns) == list(backward.columns)
    assert forward["started_at"].tolist() == backward["started_at"].tolist()[::-1]


def test_no_windows_are_a_table_without_rows():
    frame = window_frame([])
    assert list(frame.columns) == list(COLUMNS)
    assert frame.empty


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_file_holds_what_the_table_holds(tmp_path, write):
    frame = window_frame([window(number) for number in range(3)])
    path = tmp_path / "windows.out"
    write(frame, path)
    back = WRITERS[write](path)
    assert list(back.columns) == list(frame.columns)
    back["started_at"] = pd.to_datetime(back["started_at"], utc=True)
    assert (back["started_at"] == frame["started_at"]).all()
    assert back["mean_response_seconds"].tolist() == frame["mean_response_seconds"].tolist()


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_table_without_rows_can_be_written(tmp_path, write):
    write(window_frame([]), tmp_path / "windows.out")
    assert list(WRITERS[write](tmp_path / "windows.out").columns) == list(COLUMNS)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, write, monkeypatch):
    path = tmp_path / "windows.out"
    path.write_text("old")

    def fails(self, partial, **options):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fails)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", fails)
    with pytest.raises(OSError, match="No space left"):
        write(window_frame([window()]), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="no_such"):
        write_csv(window_frame([window()]), tmp_path / "no_such" / "windows.csv")


def test_a_file_is_as_readable_as_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        write_csv(window_frame([window()]), tmp_path / "windows.csv")
    finally:
        os.umask(before)
    assert (tmp_path / "windows.csv").stat().st_mode & 0o777 == 0o640
