"""Intervals are folded into figures: merged buckets, gaps as gaps, and nobody's time counted for anybody."""

import csv
import io
import math
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from simulated_run import START, SimulatedRun

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.soak.figures.fold import Gap, fold, slot_seconds
from ml_postgres_optimization.soak.interval import IntervalState
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.verdict import judge
from ml_postgres_optimization.soak.reporting.document import run_json
from ml_postgres_optimization.soak.reporting.hlog import HistogramLog
from ml_postgres_optimization.soak.reporting.minutes_csv import write_minutes_csv
from ml_postgres_optimization.telemetry import Histogram

GAPS = {
    (0.5, 0.6): IntervalState.SERVER_DOWN,
    (1.0, 1.2): IntervalState.CLIENT_DOWN,
    (1.2, 1.21): IntervalState.LOST,
}
RUN = SimulatedRun(hours=2, interval_seconds=20, per_second=10, daily=0.0, failed_ratio=0.01, gaps=GAPS)


@pytest.fixture(scope="module")
def figures():
    return fold(RUN.description, RUN.intervals())


def test_percentiles_of_a_minute_are_those_of_its_merged_buckets(figures):
    windows = [interval.window for interval in RUN.intervals() if 60 <= interval.number < 63]
    merged = sum((window.response for window in windows), Histogram.empty())
    assert figures.minutes.column("response.p99")[20] == merged.quantile_seconds(0.99)
    averaged = np.mean([window.response.quantile_seconds(0.99) for window in windows])
    assert figures.minutes.column("response.p99")[20] != averaged


def test_the_whole_adds_up(figures):
    windows = [interval.window for interval in RUN.intervals() if interval.window]
    totals = figures.totals
    assert totals.response == sum((window.response for window in windows), Histogram.empty())
    assert totals.failed_total == sum(window.failed_total for window in windows) > 0
    assert totals.succeeded_total + totals.failed_total == totals.response.total
    assert sum(totals.errors.values()) == totals.failed_total


def test_gaps_are_gaps_and_nothing_is_filled_in(figures):
    assert figures.gaps == (
        Gap(IntervalState.SERVER_DOWN, 1800.0, 2160.0, 18),
        Gap(IntervalState.CLIENT_DOWN, 3600.0, 4320.0, 36),
        Gap(IntervalState.LOST, 4320.0, 4360.0, 2),
    )
    for name in ("response.p99", "load.offered", "wait.CPU"):
        column = figures.minutes.column(name)
        assert np.isnan(column[30:36]).all() and np.isnan(column[60:72]).all()
        assert np.isfinite(np.delete(column, [*range(30, 36), *range(60, 73)])).all()


def test_what_was_due_while_the_server_was_down_did_not_succeed_and_the_rest_counts_for_nobody(figures):
    totals = figures.totals
    assert totals.presumed_total == pytest.approx(10 * 360, rel=0.3)
    assert totals.due_total == totals.response.total + totals.presumed_total
    kinder = fold(RUN.description, replace(RUN, gaps={(0.5, 0.6): IntervalState.CLIENT_DOWN}).intervals())
    assert kinder.totals.presumed_total == 0
    assert kinder.totals.success_ratio == pytest.approx(0.99, abs=0.005)
    assert totals.success_ratio == pytest.approx(0.99 * totals.response.total / totals.due_total, abs=0.005)


def test_what_the_load_met_while_the_server_was_down_is_counted_and_no_percentile_is_taken_from_it():
    run = replace(RUN, gaps={})
    intervals = [
        replace(interval, state=IntervalState.SERVER_DOWN) if 30 <= interval.number < 33 else interval
        for interval in run.intervals()
    ]
    logged = {}
    figures = fold(run.description, intervals, on_minute=lambda minute, response: logged.update({minute: response}))
    assert np.isnan(figures.minutes.column("response.p99")[10]) and np.isnan(figures.minutes.column("wait.CPU")[10])
    assert figures.minutes.column("load.offered")[10] == pytest.approx(10, rel=0.5)
    assert sum(logged.values(), Histogram.empty()) == figures.totals.response
    assert figures.totals.presumed_total == 0
    assert figures.gaps == (Gap(IntervalState.SERVER_DOWN, 600.0, 660.0, 3),)


def test_hours_count_the_same_as_the_whole_also_where_the_server_was_down_for_less_than_a_minute():
    run = replace(RUN, gaps={(0.5, 0.505): IntervalState.SERVER_DOWN})
    figures = fold(run.description, run.intervals())
    assert figures.totals.presumed_total > 0
    assert sum(due for due, _ in figures.hours.values()) == figures.totals.due_total
    assert sum(succeeded for _, succeeded in figures.hours.values()) == figures.totals.succeeded_total


@pytest.mark.parametrize(
    ("planned", "interval", "slot"),
    [(100, 1, 1), (5400, 10, 10), (259200, 10, 360), (7200, 7, 14), (3600, 3600, 3600)],
)
def test_slots_are_whole_intervals_and_round(planned, interval, slot):
    assert slot_seconds(planned, interval) == slot


def test_numbers_that_never_came_are_lost_and_none_counts_twice():
    intervals = list(RUN.intervals())
    del intervals[10:15]
    figures = fold(RUN.description, intervals)
    assert figures.gaps[0] == Gap(IntervalState.LOST, 200.0, 300.0, 5)
    assert figures.totals.presumed_total == pytest.approx(3600, rel=0.3)
    with pytest.raises(StateError, match="interval 16 comes after interval 16"):
        fold(RUN.description, [*intervals[:10], *intervals[10:12], *intervals[11:13]])


def test_a_long_run_takes_little_memory(figures):
    kept = sum(figures.minutes.column(name).nbytes for name in figures.minutes) / len(figures.minutes)
    assert kept * 72 * 60 < 5e6
    assert sys.getsizeof(figures.gaps) < 1000


def test_the_csv_has_a_row_for_every_minute_and_says_its_state(figures, tmp_path):
    write_minutes_csv(figures, tmp_path / "minutes.csv")
    rows = list(csv.DictReader((tmp_path / "minutes.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 120 and rows[0]["started_at"] == START.isoformat()
    assert (rows[31]["state"], rows[31]["response.p99"]) == ("server down", "")
    assert rows[72]["state"] == "lost" and rows[72]["response.p99"] != ""
    assert float(rows[5]["response.p99_9"]) == figures.minutes.column("response.p99_9")[5]


def test_the_hdr_log_is_read_back_by_hdrhistogram(tmp_path):
    hdrh = pytest.importorskip("hdrh.log", reason="hdrhistogram, which reads the log back, is not installed")
    from hdrh.histogram import HdrHistogram

    written, path = {}, tmp_path / "run.hlog"
    with path.open("w", encoding="utf-8") as file:
        log = HistogramLog(file, START, "a run\nof two hours")

        def keep(minute, histogram):
            written[minute] = histogram
            log.write(minute * 60.0, 60.0, histogram)

        fold(RUN.description, RUN.intervals(), on_minute=keep)
    with closing(hdrh.HistogramLogReader(str(path), HdrHistogram(1, 3 * 3600 * 1_000_000, 3))) as reader:
        assert_read(reader, written)
    assert len(written) == 120 - 6 - 12


def assert_read(reader, written):
    for minute, ours in written.items():
        theirs = reader.get_next_interval_histogram()
        assert theirs.get_start_time_stamp() == pytest.approx((START.timestamp() + minute * 60) * 1000, abs=1)
        assert theirs.get_total_count() == ours.total
        for quantile in (0.5, 0.99, 0.999):
            # theirs rounds the rank to the nearest, ours up
            found = theirs.get_value_at_percentile(100 * (math.ceil(quantile * ours.total) - 0.3) / ours.total) / 1e6
            assert found == pytest.approx(ours.quantile_seconds(quantile), rel=0.006, abs=1e-6)
    assert reader.get_next_interval_histogram() is None


@pytest.mark.parametrize("seconds", [1e-7, 1e-6, 0.000777, 0.002047, 0.002048, 0.0021, 1.0, 3599.0, 20000.0])
def test_every_duration_finds_its_place_in_the_hdr_log(seconds):
    codec = pytest.importorskip("hdrh.histogram", reason="hdrhistogram is not installed")
    file = io.StringIO()
    HistogramLog(file, START, "one").write(0.0, 1.0, Histogram.of([seconds] * 300))
    read = codec.HdrHistogram.decode(file.getvalue().splitlines()[-1].split(",")[3])
    assert read.get_total_count() == 300
    ours = min(max(Histogram.of([seconds]).quantile_seconds(0.5), 1e-6), 3 * 3600)
    assert read.get_value_at_percentile(50) / 1e6 == pytest.approx(ours, rel=0.006, abs=1e-6)


def test_the_document_says_the_same(figures):
    verdict = judge(figures, Limits())
    document = run_json(figures, verdict)
    assert document["verdict"] == verdict.result and not document["met"]
    assert document["totals"]["success_ratio"] == figures.totals.success_ratio
    assert document["totals"]["seconds_by_state"]["client down"] == 720
    assert [one["name"] for one in document["criteria"]] == [one.name for one in verdict.findings]
    assert not math.isnan(document["drift"]["p99"]["level"])
