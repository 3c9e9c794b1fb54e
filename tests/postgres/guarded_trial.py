"""A trial in a process of its own, which stops at a given moment and waits: `test_guard` ends it in all ways.

python guarded_trial.py DSN JOURNAL_DIRECTORY MOMENT [LEASE_SECONDS]

With a lease, others stand by for it; at its moment, or several divided by commas, it says who, and goes on at a line
on its standard input.
"""

import json
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.safety.protection import Duty, Lease
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.guard_session import GuardSession
from ml_postgres_optimization.target.postgres.lock import optimizer_lock
from ml_postgres_optimization.target.postgres.server import PostgresTarget

CANDIDATE = {"work_mem": 16384, "jit": False, "random_page_cost": 1.1}


class Stopping:
    """Something whose calls are counted, and that stops when the moment has come.

    Parameters
    ----------
    moment : callable
        Called with ``write 2`` after the second write, and before the second call of any other kind.
    """

    def __init__(self, real, moment, **kinds):
        self._real = real
        self._moment = moment
        self._kinds = kinds
        self._counts = dict.fromkeys(kinds, 0)

    def __getattr__(self, name):
        real = getattr(self._real, name)
        if name not in self._kinds:
            return real

        def counted(*arguments, **more):
            self._counts[name] += 1
            now = f"{self._kinds[name]} {self._counts[name]}"
            if name in ("write", "restore"):
                result = real(*arguments, **more)
                self._moment(now)
                return result
            self._moment(now)
            return real(*arguments, **more)

        return counted


class Moment:
    """Stops at its moments, and says who stands by."""

    def __init__(self, wanted):
        self.wanted = wanted.split(",")
        self.lease = None

    def __call__(self, now):
        if now not in self.wanted:
            return
        if self.lease is None:
            print(now, flush=True)
            signal.pause()
            return
        watchdog, guard = self.lease._watchdog, self.lease._guard
        told = {
            "moment": now,
            "watchdog": watchdog and watchdog.pid,
            "guard": guard and guard._connection.info.backend_pid,
        }
        print(json.dumps(told), flush=True)
        sys.stdin.readline()


def main(dsn, directory, moment, lease_seconds=None):
    moment = Moment(moment)
    with ExitStack() as resources:
        settings = ConnectionSettings.from_dsn(dsn)
        target = resources.enter_context(PostgresTarget.open(settings, memory_override_bytes=8 << 30))
        lock = resources.enter_context(optimizer_lock(target.changing)) if lease_seconds else None
        journal = resources.enter_context(Journal(Path(directory)))
        if lock:
            moment.lease = lease = resources.enter_context(lease_on(target, Path(directory), float(lease_seconds)))
        catalogue = load_catalogue()
        settings = target.settings(catalogue.settings_needed)
        confronted = catalogue.confront(settings, target.capabilities.major)
        baseline = confronted.configuration_of(settings)
        guard = Guard(
            Stopping(target, moment, write="write", restore="restore", reload="reload"),
            catalogue=confronted,
            machine=target.machine,
            journal=Stopping(journal, moment, append="record"),
            capabilities=target.capabilities,
            active=8,
            is_sole=lock and lock.held,
            protection=lease if lock else None,
        )
        with guard.trial(Change(baseline, baseline.replaced(CANDIDATE)), "t1") as trial:
            moment("intent")
            trial.apply()
            moment("applied")
            trial.withdraw()
            moment("withdrawn")


def lease_on(target, directory, lease_seconds):
    settings = target.settings_of_connection
    return Lease(
        target.changing,
        Duty(settings.keywords, directory, lease_seconds, target.changing.name),
        lambda: GuardSession.open(settings, target.capabilities),
        on_absence=lambda _: None,
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GenesisError as error:
        print(json.dumps({"error": type(error).__name__, "what": error.what}), flush=True)
        sys.exit(error.exit_code)
