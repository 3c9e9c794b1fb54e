"""A run on a server of its own, under a candidate with which that does not start again; it waits to be killed.

python doomed_trial.py STATE_FOLDER BIN_DIRECTORY
"""

import json
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.safety.journal import Journal, KnobChange, RecordKind
from ml_postgres_optimization.safety.protection import Duty, Lease
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.guard_session import GuardSession
from ml_postgres_optimization.target.postgres.lock import optimizer_lock
from ml_postgres_optimization.target.postgres.server import PostgresTarget

# ALTER SYSTEM lets it pass, and no start does: there may be senders of WAL, which it leaves nothing to send.
DOOMED = KnobChange("wal_level", None, "replica", "minimal")
HARMLESS = KnobChange("work_mem", "6MB", 6144, 8192)
FOREIGN = KnobChange("max_connections", None, 100, 90)


def main(state, programs):
    home = Home(Path(state), Path(state) / "logs")
    with ExitStack() as resources:
        server = resources.enter_context(EmbeddedServer.start(home.embedded, binaries=find_binaries(Path(programs))))
        target = resources.enter_context(PostgresTarget.open(ConnectionSettings.from_dsn(server.dsn)))
        directory = home.of_server(target.capabilities.system_identifier)
        resources.enter_context(optimizer_lock(target.changing))
        journal = resources.enter_context(Journal(directory))
        settings = target.settings_of_connection
        duty = Duty(settings.keywords, directory, 10.0, target.changing.name, embedded=home.embedded)
        lease = resources.enter_context(
            Lease(
                target.changing,
                duty,
                lambda: GuardSession.open(settings, target.capabilities),
                on_absence=lambda _: None,
            )
        )
        target.changing.run(lambda connection: connection.execute("ALTER SYSTEM SET work_mem = '6MB'"), "begin")
        knobs = (DOOMED, HARMLESS, FOREIGN)
        journal.append(RecordKind.INTENT, "t1", knobs)
        lease.arm(knobs, 600.0)
        for knob in knobs:
            target.changing.run(lambda connection, knob=knob: connection.execute(altered(knob)), "change")
        # somebody else's, in between
        target.changing.run(lambda connection: connection.execute("ALTER SYSTEM SET max_connections = 80"), "change")
        told = {"postmaster": server._process.pid, "watchdog": lease._watchdog.pid, "journal": str(directory)}
        print(json.dumps(told), flush=True)
        signal.pause()


def altered(knob):
    return f"ALTER SYSTEM SET {knob.name} = '{knob.new_value}'"


if __name__ == "__main__":
    main(*sys.argv[1:])
