"""A server of ours that dies together with its run, and does not start under what was on trial."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from protected_trial import is_gone, until

from ml_postgres_optimization.errors import AlreadyRunning, EmbeddedServerFailed
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Silence
from ml_postgres_optimization.interfaces.session import open_session
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.safety.journal import read_journal
from ml_postgres_optimization.target.embedded import EmbeddedServer, system_identifier

SCRIPT = Path(__file__).with_name("doomed_trial.py")


class Said(Silence):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def home(folder):
    return Home(folder, folder / "logs")


@pytest.fixture
def die_together(home, binaries):
    """Kill a run and its server under a candidate with which that does not start, and others too."""

    def die(*others):
        process = subprocess.Popen(
            [sys.executable, SCRIPT, str(home.state), str(binaries.bin_directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline()
        assert line, process.stderr.read()
        told = json.loads(line)
        for victim in (*(told[other] for other in others), told["postmaster"], process.pid):
            os.kill(victim, signal.SIGKILL)
        process.communicate()
        return told

    yield die
    EmbeddedServer.remove(home.embedded)


def in_file(home):
    lines = (home.embedded / "data" / "postgresql.auto.conf").read_text().splitlines()
    return sorted(line for line in lines if line and not line.startswith("#"))


AS_BEFORE = ["max_connections = '80'", "work_mem = '6MB'"]
"""With what somebody else has set meanwhile."""


def test_the_watchdog_mends_the_file_of_our_own_server(home, binaries, die_together):
    told = die_together()
    until(lambda: is_gone(told["watchdog"]))
    assert in_file(home) == AS_BEFORE
    assert not read_journal(Path(told["journal"])).unfinished
    with EmbeddedServer.start(home.embedded, binaries=binaries) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("6MB",)
        assert Path(told["journal"]).name == system_identifier(server.data_directory)


def test_the_next_start_mends_it_before_it_starts_the_server(home, binaries, die_together):
    told, said = die_together("watchdog"), Said()
    with pytest.raises(EmbeddedServerFailed):
        EmbeddedServer.start(home.embedded, binaries=binaries)
    with open_session(Settings(pg_bin=binaries.bin_directory), home, {}, said, read_only=True):
        assert in_file(home) == AS_BEFORE
    assert not read_journal(Path(told["journal"])).unfinished
    (line,) = [line for line in said.lines if "Undid trial t1" in line]
    assert "wal_level reset, work_mem = 6MB" in line
    assert "left as somebody else set it: max_connections = 80" in line


def test_a_server_is_at_rest_only_where_nobody_runs_it(home, binaries):
    with pytest.raises(EmbeddedServerFailed), EmbeddedServer.at_rest(home.embedded):
        raise AssertionError("there is none")
    with (
        EmbeddedServer.start(home.embedded, binaries=binaries),
        pytest.raises(AlreadyRunning),
        EmbeddedServer.at_rest(home.embedded),
    ):
        raise AssertionError("it runs")
    with EmbeddedServer.at_rest(home.embedded), pytest.raises(AlreadyRunning):
        EmbeddedServer.start(home.embedded, binaries=binaries)
    EmbeddedServer.remove(home.embedded)
