"""A trial in another process, those who stand by for it, and what is left of it on the server."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

SCRIPT = Path(__file__).with_name("guarded_trial.py")
STOCK = {"work_mem": "4MB", "jit": "on", "random_page_cost": "4"}
TRIED = {"work_mem": "16MB", "jit": "off", "random_page_cost": "1.1"}
# Records of the journal: intent, armed, applied, verified, withdrawn, reverted.
MOMENTS = (
    *("record 2", "intent", "write 1", "write 2", "write 3", "reload 1", "record 3", "record 4", "applied"),
    *("restore 1", "restore 3", "reload 2", "record 5", "withdrawn", "record 6"),
)
CONFIRM_MOMENTS = tuple(
    f"confirm/{moment}" for moment in ("write 2", "applied", "sole 2", "record 5", "sole 3", "confirmed")
)
# Of the inner trial and what comes after it: records 5 to 10 are the inner one's, 11 closes the outer.
NESTED_MOMENTS = tuple(
    f"nested/{moment}"
    for moment in (
        *("intent", "write 2", "write 3", "reload 2", "applied", "restore 1", "reload 3", "record 9", "inner closed"),
        *("restore 3", "reload 4", "record 10"),
    )
)
RESTART_MOMENTS = tuple(
    f"restart/{moment}"
    for moment in (
        *("record 2", "write 2", "restart 1", "record 3", "applied", "restore 1", "restart 2", "record 5"),
        *("withdrawn", "record 6"),
    )
)
# Of settings of a role: both are written before that of the server.
ROLE_MOMENTS = tuple(
    f"role/{moment}"
    for moment in ("record 2", "write 1", "write 2", "write 3", "applied", "restore 1", "restore 2", "record 5")
)
ROLE_SETTINGS = ["lock_timeout=3s"]


def make_role(dsn):
    """Make the application's role, which has a limit already."""
    by_hand(dsn, "CREATE ROLE application")
    by_hand(dsn, "ALTER ROLE application IN DATABASE postgres SET lock_timeout = '3s'")


def role_settings(dsn):
    """What the application's role is given in this database."""
    query = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'application'::regrole"
    with psycopg.connect(dsn) as connection:
        return [line for (lines,) in connection.execute(query).fetchall() for line in lines]


def by_hand(dsn, *statements):
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def seen(dsn, *names):
    """What a fresh session has."""
    with psycopg.connect(dsn) as connection:
        return {name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0] for name in names}


def written(server):
    lines = (server.data_directory / "postgresql.auto.conf").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class ProtectedTrial:
    """A trial in another process that has reached its moment, and those who stand by for it."""

    def __init__(self, dsn, process, told):
        self.dsn = dsn
        self.process = process
        self.watchdog, self.guard = told["watchdog"], told["guard"]

    def kill(self, *victims):
        """Kill them at once, as nearly as can be."""
        if "watchdog" in victims:
            with suppress(ProcessLookupError):  # it was sent home already
                os.kill(self.watchdog, signal.SIGKILL)
        if "guard" in victims and self.guard:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [self.guard])
        if "tuner" in victims:
            self.process.kill()

    def go_on_until_the_next_moment(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline(), self.process.stderr.read()

    def go_on(self):
        """Let it go on, and return what it says in the end."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        said, complaints = self.process.communicate(timeout=30)
        assert not complaints, complaints
        return said


@contextmanager
def protected_trial(dsn, directory, moment, lease_seconds, *more):
    process = subprocess.Popen(
        [sys.executable, SCRIPT, dsn, directory, moment, str(lease_seconds), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield ProtectedTrial(dsn, process, json.loads(line))
    finally:
        process.kill()
        process.communicate()


def comes_back(server, within_seconds, wanted=None):
    """Wait until fresh sessions and the file are as before the trial; return how long it took.

    Where somebody has changed something meanwhile, `wanted` says what sessions shall have.
    """
    return comes_true(
        lambda: seen(server.dsn, *STOCK) == (wanted or STOCK) and (wanted is not None or not written(server)),
        within_seconds,
        lambda: (seen(server.dsn, *STOCK), written(server)),
    )


def comes_true(condition, within_seconds, said):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + within_seconds, said()
        time.sleep(0.1)
    return time.monotonic() - began


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
