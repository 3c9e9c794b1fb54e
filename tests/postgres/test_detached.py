"""The extended test in a process of its own, and one whose terminal is closed."""

import json
import os
import pty
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from command_line import ROOT, CommandLine, clean_environment
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.soak.journal import Ending, recover, runs_in

PATIENCE_SECONDS = 60.0
PROGRAM = (sys.executable, "-m", "ml_postgres_optimization.interfaces.cli")
SHORT = ("--simulate", "--level", "BASIC", "--scale", "0.005")


@pytest.fixture
def home(tmp_path, monkeypatch):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "0.5")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "home"


def runs(home):
    return [run for folder in home.glob("servers/*/soaks") for run in runs_in(folder)]


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about in time")


def test_what_ends_a_test_before_it_has_begun_is_told_and_leaves_nothing(home, capsys):
    cli = CommandLine(capsys, home, "postgresql://nobody:s3cret@127.0.0.1:1/x")
    refused = cli("test", "--detach", "--simulate", "--json")
    assert refused.code == 3
    error = refused.document["error"]
    assert (error["kind"], error["exit_code"]) == ("ServerUnreachable", 3)
    assert "s3cret" not in refused.out + refused.err
    assert not [*home.glob("detached*")] and not runs(home)
    cli("test", "--detach", "--dry-run").is_refused(2, "--detach and --dry-run")
    cli("test", "--attach", "--stop").is_refused(2, "--attach and --stop")
    cli("test", "--attach").is_refused(2, "No extended test is recorded")


@pytest.mark.long
def test_a_detached_test_is_seen_stopped_and_taken_up_again(own_server, home, capsys):
    dsn = make_conninfo(own_server.dsn, password="s3cret")
    cli = CommandLine(capsys, home, dsn)
    cli("setup").done()

    def detached(*words):
        command = [*PROGRAM, "test", *words, "--detach", "--json", "--dsn", dsn]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    first = detached(*SHORT, "--duration", "0.012")
    process = psutil.Process(first["process_id"])
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert "s3cret" not in " ".join(process.cmdline())
    assert process.terminal() is None
    (told,) = cli("status", "--json").done().document["extended_tests"]
    assert (told["run"], told["status"]) == (first["run"], "running")
    wait_for(lambda: runs(home)[0].state.last_number >= 1)
    cli.dsn = None
    stopped = cli("test", "--stop", "--json").done()
    assert stopped.document["status"] == "stopped"
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert json.loads(Path(first["result"]).read_text())["error"]["kind"] == "Interrupted"

    seen = cli("test", "--attach", first["run"]).done(1)
    assert f"--resume {first['run']} goes on with it" in seen.out and not seen.err
    second = detached("--resume", "--simulate", "--scale", "0.005", "--maximum-mean-milliseconds", "10000")
    assert second["run"] == first["run"] and second["process_id"] != first["process_id"]
    attached = cli("test", "--attach", first["run"], "--maximum-mean-milliseconds", "10000", "--json").done(0, 1)
    assert attached.document["status"] == "finished"
    wait_for(lambda: Path(second["result"]).read_text().endswith("}\n"))
    assert json.loads(Path(second["result"]).read_text())["verdict"] == attached.document["verdict"]
    assert "s3cret" not in Path(second["log"]).read_text()


@pytest.mark.long
def test_a_test_whose_terminal_is_closed_goes_on(own_server, home, capsys):
    CommandLine(capsys, home, own_server.dsn)("setup").done()
    child, terminal = pty.fork()
    if child == 0:
        words = ("test", *SHORT, "--duration", "0.002", "--dsn", own_server.dsn)
        os.execv(PROGRAM[0], [*PROGRAM, *words])
    wait_for(lambda: _drained(terminal) and any(run.state.last_number >= 1 for run in runs(home)))
    os.close(terminal)
    os.waitpid(child, 0)
    (run,) = runs(home)
    state = recover(run.folder).state
    assert state.ending is Ending.FINISHED
    assert state.died_total == 0, "its client processes survive as well"
    assert [*home.glob("logs/test-*/report.html")]


def _drained(terminal):
    """Read what is shown, so that nobody waits for us."""
    os.set_blocking(terminal, False)
    with suppress(BlockingIOError):
        os.read(terminal, 65536)
    return True
