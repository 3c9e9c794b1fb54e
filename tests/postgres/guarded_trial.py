"""A trial in a process of its own, which stops at a given moment and waits: `test_guard` ends it in all ways.

python guarded_trial.py DSN JOURNAL_DIRECTORY MOMENT
"""

import signal
import sys
from pathlib import Path

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.server import PostgresTarget

CANDIDATE = {"work_mem": 16384, "jit": False, "random_page_cost": 1.1}


class Stopping:
    """An actuator that says so when the moment has come, and waits for a signal.

    Parameters
    ----------
    moment : str
        ``write 2``: after the second write; ``reload 1``: before the first reload.
    """

    def __init__(self, target, moment):
        self.settings = target.settings
        self._target = target
        self._moment = moment
        self._counts = {"write": 0, "restore": 0, "reload": 0}

    def write(self, name, value):
        self._target.write(name, value)
        self._count("write")

    def restore(self, name, written_value):
        self._target.restore(name, written_value)
        self._count("restore")

    def reload(self):
        self._count("reload")
        self._target.reload()

    def _count(self, what):
        self._counts[what] += 1
        wait_at(f"{what} {self._counts[what]}", self._moment)


def wait_at(now, moment):
    if now == moment:
        print(now, flush=True)
        signal.pause()


def main(dsn, directory, moment):
    with (
        PostgresTarget.open(ConnectionSettings.from_dsn(dsn)) as target,
        Journal(Path(directory)) as journal,
    ):
        catalogue = load_catalogue()
        settings = target.settings(catalogue.settings_needed)
        confronted = catalogue.confront(settings, target.capabilities.major)
        baseline = confronted.configuration_of(settings)
        guard = Guard(
            Stopping(target, moment),
            catalogue=confronted,
            machine=target.machine,
            journal=journal,
            capabilities=target.capabilities,
            active=8,
        )
        with guard.trial(Change(baseline, baseline.replaced(CANDIDATE)), "t1") as trial:
            wait_at("intent", moment)
            trial.apply()
            wait_at("applied", moment)
            trial.withdraw()


if __name__ == "__main__":
    main(*sys.argv[1:])
