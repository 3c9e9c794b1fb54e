"""What a soak records on a real server: all that it is judged by, and nothing that the page does not explain."""

import errno
import fnmatch
import os
import re
from datetime import timedelta
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.interfaces.report.soak.panels import plots_of
from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.figures.happenings import Happenings
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal import RunDescription, RunJournal, read_run
from ml_postgres_optimization.soak.judging.metrics import METRICS
from ml_postgres_optimization.soak.reporting.document import recorded_json
from ml_postgres_optimization.soak.runner import run_soak
from ml_postgres_optimization.soak.running import Course, Gauges, Timeline, Watch
from ml_postgres_optimization.target.host import ServerMemory, own_resources
from ml_postgres_optimization.target.postgres.collector import Stock
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.telemetry import Recorder, SystemClock, VirtualClock, Window
from ml_postgres_optimization.workload import SOAK_MIX, LoadGenerator, LoadPlan, create_tables

PAGE = Path(__file__).parents[2] / "docs" / "soak_report.md"
PLOTS = {
    *("Response time", "Throughput", "Use of the error budget", "WAL", "CPU", "Client memory", "Server memory"),
    *("Size per live row", "Pressure", "Dead rows", "Size of the load's tables", "WAL kept", "Disk left"),
    *("Oldest that is not frozen", "Lag of the load's scheduler", "Under way"),
}


def explained() -> list[str]:
    """Return the patterns of the page's tables, with their braces spread out."""
    cells = re.findall(r"^\| (`[^|]*`) \|", PAGE.read_text(), re.MULTILINE)
    patterns = []
    for pattern in re.findall(r"`((?:load|rate|response|lag|error|wait|resource|gauge)\.[^`]+)`", "\n".join(cells)):
        parts = [part.strip("{}").split(",") for part in re.split(r"(\{[^}]*\})", pattern)]
        patterns += ["".join(chosen) for chosen in product(*parts)]
    return patterns


@pytest.fixture(scope="module")
def own_database(server):
    """The DSN of a database for all tests here."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE recorded")
        yield make_conninfo(server.dsn, dbname="recorded")
        connection.execute("DROP DATABASE recorded WITH (FORCE)")


@pytest.fixture(scope="module")
def figures(own_database, binaries, module_folder):
    """Two short intervals under load, in the second of which somebody asks for a checkpoint."""
    create_tables(own_database, 0.005)
    if binaries.has_library("pgstattuple"):
        with psycopg.connect(own_database) as connection:
            connection.execute("CREATE EXTENSION pgstattuple")
    clock, folder = SystemClock(), module_folder / "run"
    plan = LoadPlan(SOAK_MIX, rate_per_second=100.0, connections=2, processes=1, seed=3, drain_seconds=0.3)
    with (
        PostgresTarget.open(resolve_connection(own_database, {})) as target,
        LoadGenerator(own_database, plan) as load,
    ):
        description = RunDescription("run", "1", "db", "here", "17", clock.now(), 2.0, 1.0, 3)
        gauges = Gauges(clock, lambda: own_resources(load.process_ids), target.stock)

        def ask(interval, _share):
            if interval.number == 0:
                with psycopg.connect(own_database, autocommit=True) as connection:
                    connection.execute("CHECKPOINT")

        watch = Watch(lambda: "stock", resources=gauges, events=gauges.events)
        recorder, timeline = Recorder(target, clock, samples=load.samples), Timeline(clock, description)
        with RunJournal(folder, description) as journal, gauges:
            run_soak(journal, Course(journal, recorder, timeline, clock, watch=watch, load=load), on_interval=ask)
    return fold(RunOutline("run", description.started_at, 1.0, 2.0), read_run(folder).intervals)


@pytest.mark.parametrize("name", METRICS)
def test_what_a_run_is_judged_by_is_recorded(figures, name):
    metric = METRICS[name]
    assert {metric.columns[0], *metric.per[:1]} <= set(figures.minutes)
    assert np.nanmin(metric.values(figures.minutes)) > 0


def test_the_page_explains_whatever_is_recorded(figures):
    patterns = explained()
    unknown = [name for name in figures.minutes if not any(fnmatch.fnmatchcase(name, one) for one in patterns)]
    assert not unknown
    assert len(figures.minutes.names_of("rate")) > 60
    spread = recorded_json(figures.minutes)["resource.server.processes"]
    assert spread["min"] == spread["last"] > 5


def test_what_is_recorded_is_shown(figures):
    shown = {plot.title for plot in plots_of(figures.slots, success_ratio=0.995)}
    assert shown >= PLOTS


def test_a_checkpoint_that_was_asked_for_is_a_mark_and_what_is_unseen_is_told(figures, binaries):
    (mark,) = [event for event in figures.events if event.kind is EventKind.REQUESTED_CHECKPOINT]
    assert mark.at >= figures.description.started_at and mark.until
    told = " ".join(event.text for event in figures.events if event.text.startswith("Not recorded here"))
    bloat = {"resource.inexact_bloat.dead_bytes", "resource.inexact_bloat.free_bytes"}
    assert bloat <= set(figures.minutes) or "pgstattuple is not installed" in told
    assert binaries.major >= 18 or "load_tables.autovacuum_seconds (the server does not say)" in told


def test_a_checkpoint_lasts_from_its_count_to_its_time(figures):
    start = figures.description.started_at

    def interval(number, **growth):
        began, ended = (start + timedelta(seconds=10 * place) for place in (number, number + 1))
        rates = {"checkpointer.write_seconds_per_second": 0.0}
        rates |= {f"checkpointer.{name}_per_second": value / 10 for name, value in growth.items()}
        rates |= {"host.oom_kills_per_second": 0.2} if number == 4 else {}
        return Interval(number, 1, IntervalState.MEASURED, began, ended, Window(began, ended, "stock", rates=rates))

    course = [
        interval(0, write_seconds=30.0),  # one that had begun before the run
        interval(1, timed_checkpoints=1),
        interval(2),
        interval(3, write_seconds=18.0, requested_checkpoints=1),  # and the next one begins
        interval(4, write_seconds=5.0),
        interval(5, timed_checkpoints=1),
        Interval(6, 1, IntervalState.LOST, start, start),
        interval(7, write_seconds=40.0),
        interval(30, timed_checkpoints=1),  # skipped: nothing had been written
        interval(60, timed_checkpoints=1, write_seconds=3.0),
        interval(90, timed_checkpoints=1, write_seconds=4.0),
    ]
    happenings = Happenings()
    found = [event for each in course for event in happenings.seen_in(each)]
    assert [(event.kind, event.at, event.until) for event in found] == [
        (EventKind.CHECKPOINT, course[1].started_at, course[3].ended_at),
        (EventKind.REQUESTED_CHECKPOINT, course[3].started_at, course[4].ended_at),
        (EventKind.MEMORY, course[4].started_at, course[4].ended_at),
        (EventKind.CHECKPOINT, course[9].started_at, course[9].ended_at),
        (EventKind.CHECKPOINT, course[10].started_at, course[10].ended_at),
    ]
    assert "18 s of writing" in found[0].text
    assert "killed 2 processes on the server's machine" in found[2].text


def test_the_memory_of_a_process_that_is_gone_is_unseen(tmp_path):
    values, unseen = ServerMemory(1, tmp_path).read()
    assert not values
    assert unseen == {"server": "none of the server's processes can be seen"}


def test_memory_that_the_kernel_does_not_tell_is_unseen_and_not_nothing(tmp_path, monkeypatch):
    pid = os.getpid()
    (tmp_path / str(pid)).mkdir()
    (tmp_path / str(pid) / "status").write_text("RssAnon:\t 8 kB\n")
    values, unseen = ServerMemory(pid, tmp_path).read()
    assert values["server.private_bytes"] == 8192
    assert "server.pss_bytes" not in values and "no smaps_rollup" in unseen["server.pss_bytes"]

    def refuse(_self, *, recursive):
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil.Process, "children", refuse)
    values, unseen = ServerMemory(pid, tmp_path).read()
    assert not values, "the postmaster alone is not the server"
    assert "hidepid" in unseen["server"]


def test_what_is_missing_in_passing_is_told_the_second_time_and_ends_no_run():
    clock = VirtualClock()
    refused, refused_for_good = ({"load_tables": "locked"}, {"load_tables"}), ({"load_tables": "not permitted"}, ())
    seen, also = ({}, ()), ({"server": "elsewhere"}, ())
    looks = [refused, seen, refused, also, refused, refused, refused_for_good, refused_for_good]
    looks += [OSError(errno.EMFILE, "Too many open files")] * 2

    def stock():
        look = looks.pop(0)
        if isinstance(look, OSError):
            raise look
        unseen, passing = look
        return Stock({} if "load_tables" in unseen else {"load_tables.live_tuples": 1.0}, unseen, passing)

    gauges, told = Gauges(clock, dict, stock), []
    while looks:
        gauges()
        told.append(" ".join(event.text for event in gauges.events()))
        clock.sleep(60.0)
    texts = ["", "", "", "server (elsewhere)", "", "load_tables (locked)", "load_tables (not permitted)", "", ""]
    assert told[:9] == [text and f"Not recorded here: {text}." for text in texts]
    assert "Too many open files" in told[9]
