"""The owner's word over a run that is at work: approve, decline, pause, resume, on a real server."""

import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest
from command_line import NAMES_A_SERVER, ROOT, CommandLine, by_hand, clean_environment, rows, written_settings

from ml_postgres_optimization.target.postgres.lock import KEY

PATIENCE_SECONDS = 90
MAIN = "from ml_postgres_optimization.interfaces.cli import main; main()"


@pytest.fixture
def cli(capsys, folder, monkeypatch, own_server):
    clean_environment(monkeypatch, folder)
    line = CommandLine(capsys, folder, own_server.dsn)
    line("setup").done()
    by_hand(own_server.dsn, "ALTER SYSTEM SET checkpoint_completion_target = 0.7", "SELECT pg_reload_conf()")
    return line


@pytest.fixture
def run(cli):
    """Start ``genesis-pg`` as a process of its own, and end it."""
    processes = []

    def start(*words):
        environ = {name: value for name, value in os.environ.items() if not name.startswith(NAMES_A_SERVER)}
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *words, "--dsn", cli.dsn],
            cwd=ROOT,
            env={**environ, "GENESIS_HOME": str(cli.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def until(look):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(1.0)
    return found


def waiting(cli):
    return [asked for asked in cli("approve", "--json").document["proposals"] if asked["answer"] == "waiting"]


@pytest.mark.slow
def test_a_run_waits_for_a_word_and_puts_back_what_is_on_trial_when_it_is_paused(cli, run):
    before = written_settings(cli.dsn)
    words = ("--simulate", "--duration", "0.1", "--scale", "0.02", "--level", "BASIC", "--action", "approve")
    process = run("optimize", *words)
    while True:
        (asked,) = until(lambda: waiting(cli))
        assert written_settings(cli.dsn) == before
        if "checkpoint_completion_target" in asked["changes"]:
            break
        assert "is not tried" in cli("decline", asked["id"]).done().out
        until(lambda name=asked["id"]: name not in [other["id"] for other in waiting(cli)])
    assert cli("status", "--json").document["proposals_waiting"] == [asked["id"]]
    cli("approve", asked["id"][:6]).done()
    until(lambda: written_settings(cli.dsn) != before)
    assert "The run that is at work has it on trial" in cli("status").done().out
    assert "puts back what is on trial" in cli("pause", "--reason", "incident").done().out
    until(lambda: written_settings(cli.dsn) == before and not cli("status", "--json").document["unfinished_trials"])
    assert rows(cli.dsn, "SHOW checkpoint_completion_target") == [("0.7",)]
    assert cli("status", "--json").document["paused"].endswith("incident")
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, told
    assert "changes are paused" in told
    assert "was declined" in told
    assert written_settings(cli.dsn) == before
    cli("tune", "--simulate", "--workload", "tpcb", "--scale", "1").is_refused(4, "Changes are paused", "resume")
    assert cli("resume", "--json").done().document == {"paused": False, "was_paused": True}


def test_a_pause_says_who_goes_on_with_another_folder(cli, own_server):
    assert cli("pause", "--json").done().document["goes_on"] is None
    with psycopg.connect(own_server.dsn, application_name="genesis-pg: settings x") as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(%(class)s, %(object)s)", KEY)
        assert "genesis-pg: settings x" in cli("pause", "--json").done().document["goes_on"]
        assert "works with another state folder, and goes on" in cli("pause").done().out


@pytest.mark.long
def test_advice_changes_nothing_and_says_what_is_worth_a_trial(cli):
    before = written_settings(cli.dsn)
    words = (
        "optimize",
        "--action",
        "advise",
        "--simulate",
        "--scale",
        "0.02",
        "--level",
        "BASIC",
        "--duration",
        "0.001",
    )
    document = cli(*words, "--json").done().document
    assert "operations in" in document["observed"]
    (machine,) = [found for found in document["proposals"] if found["reason"] == "what the rules say of this machine"]
    assert any(line.startswith("ALTER SYSTEM SET checkpoint_completion_target = ") for line in machine["sql"])
    assert len({found["id"] for found in document["proposals"]}) == len(document["proposals"])
    assert written_settings(cli.dsn) == before
    assert cli("status", "--json").document["trials_in_force"] == []
    told = cli(*words).done().out
    assert "-- Seen: " in told
    assert "nothing was changed" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--window", "Mon 22:00"), "'Mon 22:00' is no window"),
        (("--window", "Mon 22:00-23:00 Atlantis"), "'Atlantis' is no time zone"),
        (("--window", "daily 22:00-22:01", "--simulate", "--scale", "0.02"), "leave 30 s at a time"),
        (("--action", "perhaps"), "--action is 'perhaps'"),
        (("--action", "advise", "--continuous"), "--action approve"),
    ],
)
def test_a_wrong_word_is_refused(cli, words, said):
    cli("optimize", *words).is_refused(2, said)


@pytest.mark.parametrize("action", ["approve", "advise"])
def test_what_cannot_wait_for_a_word_refuses_to_go_on_without_one(cli, monkeypatch, action):
    monkeypatch.setenv("GENESIS_ACTION", action)
    before = written_settings(cli.dsn)
    cli("tune", "--simulate", "--workload", "tpcb", "--scale", "1").is_refused(2, f"Action {action} is for optimize")
    cli("simulate", "--duration", "0.01").is_refused(2, f"Action {action} is for optimize")
    cli.classic("--mode", "all", "--duration", "0.05").is_refused(2, f"Action {action} is for optimize")
    assert written_settings(cli.dsn) == before


def test_a_word_for_nobody_is_refused(cli):
    cli("approve", "0123456789ab").is_refused(2, "No proposal '0123456789ab' is known; waiting are: none")
    cli("decline", "'; DROP TABLE x").is_refused(2, "No proposal")
    assert "No proposal waits" in cli("approve").done().out
    assert "Nothing was paused" in cli("resume").done().out


def test_a_window_that_is_closed_is_told_and_not_waited_for_in_vain(cli):
    (now,) = rows(cli.dsn, "SELECT (extract(hour FROM now() AT TIME ZONE 'UTC')::int + 12) % 24")[0]
    window = f"{now:02d}:00-{(now + 1) % 24:02d}:00 UTC"
    words = ("--simulate", "--scale", "0.02", "--level", "BASIC", "--duration", "0.02", "--window", window)
    told = cli("optimize", *words).done().out
    assert f"changes are made only daily {window}; the next one opens at" in told
    assert cli("status", "--json").document["trials_in_force"] == []
