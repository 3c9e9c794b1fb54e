"""Prevention by the command line alone: it records under faults, trains, and acts on what the forest foretells."""

import random
import threading
from contextlib import suppress

import psycopg
import pytest
from command_line import CommandLine, clean_environment

from ml_postgres_optimization.interfaces.workbench import load

LOAD = ("--scale", "0.02", "--level", "BASIC")


class Stalls:
    """Locks on the accounts of the load, one after the other, held for longer than its statements may take."""

    def __init__(self, dsn):
        self._dsn, self._rng = dsn, random.Random(3)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._over.wait(self._rng.uniform(1.5, 4.0)):
            # the load locks them in another order: who is the victim of a deadlock tries again
            with (
                suppress(psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable),
                psycopg.connect(self._dsn, options="-c statement_timeout=0 -c lock_timeout=2s") as holder,
            ):
                if holder.execute("SELECT to_regclass('genesis_load.accounts')").fetchone()[0]:
                    # row by row: a lock of the table keeps off whoever opens a connection and prepares statements
                    holder.execute("SELECT FROM genesis_load.accounts FOR UPDATE")
                    self._over.wait(self._rng.uniform(2.0, 3.5))
                holder.rollback()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


@pytest.mark.long
def test_what_was_trained_under_faults_is_acted_on_and_kept(monkeypatch, capsys, tmp_path, own_server):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "0.5")
    monkeypatch.setattr(load, "CAPACITY_SECONDS", 0.5)
    here = CommandLine(capsys, tmp_path / "home", own_server.dsn)
    with psycopg.connect(own_server.dsn) as connection:
        # as whoever owns the server would have it: what waits longer fails
        connection.execute("ALTER ROLE postgres IN DATABASE postgres SET statement_timeout = '1500ms'")
    here("setup").done()
    with Stalls(own_server.dsn):
        here("test", *LOAD, "--simulate", "--duration", "0.045").done(0, 1)
        print(here("train").done().out)
        print(here("optimize", "--continuous", "--simulate", *LOAD, "--duration", "0.09").done().out)
    told = here("history", "--json", "--limit", "100").done().document["prevention"]
    print(told)
    foretold = [each for each in told["last"] if each["source"].startswith("errors-")]
    assert foretold, told
    assert all(each["probability"] >= each["threshold"] for each in foretold)
    acted = [each for each in foretold if each["choice"] == "acted"]
    assert acted, "of the first five at most one is held out"
    assert {each["error_class"] for each in acted} == {"timeout"}
    assert any(each["is_whole"] and each["due"] > 0 for each in acted)
    assert all(each["ended_at"] for each in foretold)
    assert here("status", "--json").document["unfinished_trials"] == []
