"""A trial in a process of its own, which stops at a given moment and waits: `test_guard` ends it in all ways.

python guarded_trial.py DSN JOURNAL_DIRECTORY [SCENARIO/]MOMENT [LEASE_SECONDS [RESTART_COMMAND]]

With a lease, others stand by for it; at its moment, or several divided by commas, it says who, and goes on at a line
on its standard input.
"""

import json
import signal
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Change, RoleSetting
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.safety.protection import Duty, Lease
from ml_postgres_optimization.target.embedded import find_binaries
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.guard_session import GuardSession
from ml_postgres_optimization.target.postgres.lock import optimizer_lock
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.target.restart import CommandRestarter

# of a role: one that has another already, and one that has none
ROLE = "application"
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
        self.scenario, _, wanted = wanted.rpartition("/")
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
            "guard": guard._connection.info.backend_pid if guard and guard._is_armed else None,
        }
        print(json.dumps(told), flush=True)
        sys.stdin.readline()


def main(dsn, directory, moment, lease_seconds=None, restart_command=None):
    moment = Moment(moment)
    directory, lease_seconds = Path(directory), float(lease_seconds or 0)
    with ExitStack() as resources:
        settings = ConnectionSettings.from_dsn(dsn)
        restarter = restarts_by(restart_command, resources) if restart_command else None
        target = resources.enter_context(
            PostgresTarget.open(settings, memory_override_bytes=8 << 30, restarter=restarter)
        )
        lock = resources.enter_context(optimizer_lock(target.changing)) if lease_seconds else None
        journal = resources.enter_context(Journal(directory))
        if lock:
            duty = duty_on(target, directory, lease_seconds, restart_command)
            moment.lease = resources.enter_context(lease_on(target, duty))
        guard = guard_on(target, journal, moment, lock)
        SCENARIOS[moment.scenario](guard, moment)


def guard_on(target, journal, moment, lock):
    catalogue = replace(load_catalogue(), may_restart=target.can_restart)
    settings = target.settings(catalogue.settings_needed)
    return Guard(
        Stopping(target, moment, write="write", restore="restore", reload="reload", restart="restart"),
        catalogue=catalogue.confront(settings, target.capabilities.major),
        machine=target.machine,
        journal=Stopping(journal, moment, append="record"),
        capabilities=target.capabilities,
        active=8,
        is_sole=lock and Stopping(lock, moment, held="sole").held,
        over_a_restart=lock.over_a_restart if lock else nullcontext,
        protection=moment.lease,
        roles=[ROLE],
    )


def baseline_of(guard):
    return guard.catalogue.configuration_of(guard.actuator.settings(guard.catalogue.settings_needed))


def put_back(guard, moment, candidate=CANDIDATE):
    """Try, and put back."""
    baseline = baseline_of(guard)
    with guard.trial(Change(baseline, baseline.replaced(candidate)), "t1") as trial:
        moment("intent")
        trial.apply()
        moment("applied")
        trial.withdraw()
        moment("withdrawn")


def role(guard, moment):
    """Try what the new sessions of a role get, and a setting of the server with it."""
    put_back(guard, moment, role_candidate(guard.capabilities.database))


def role_candidate(database):
    limits = {"idle_in_transaction_session_timeout": 10_000, "lock_timeout": 2_000}
    return {RoleSetting(name, ROLE, database).key: limit for name, limit in limits.items()} | {"work_mem": 16384}


def restart(guard, moment):
    """Try what needs a restart."""
    put_back(guard, moment, {**CANDIDATE, "shared_buffers": 8192})


def confirm(guard, moment):
    """Try, and leave in force."""
    baseline = baseline_of(guard)
    with guard.trial(Change(baseline, baseline.replaced(CANDIDATE)), "t1") as trial:
        trial.apply()
        moment("applied")
        trial.confirm()
        moment("confirmed")


def nested(guard, moment):
    """Try something, and something else over it."""
    baseline = baseline_of(guard)
    outer = baseline.replaced({"work_mem": CANDIDATE["work_mem"]})
    with guard.trial(Change(baseline, outer), "t1") as first:
        first.apply()
        with guard.trial(Change(outer, baseline.replaced(CANDIDATE)), "t2") as second:
            moment("intent")
            second.apply()
            moment("applied")
        moment("inner closed")


SCENARIOS = {"": put_back, "confirm": confirm, "nested": nested, "restart": restart, "role": role}


def duty_on(target, directory, lease_seconds, restart_command):
    keywords = target.settings_of_connection.keywords
    return Duty(keywords, directory, lease_seconds, target.changing.name, restart_command)


def lease_on(target, duty):
    settings = target.settings_of_connection
    return Lease(
        target.changing,
        duty,
        lambda: GuardSession.open(settings, target.capabilities),
        on_absence=lambda _: None,
    )


def restarts_by(command, resources):
    def made(connection, data_directory, programs):
        return resources.enter_context(
            CommandRestarter(
                command,
                lambda: connect(connection).close(),
                data_directory=data_directory,
                binaries=find_binaries(programs),
            )
        )

    return made


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GenesisError as error:
        print(json.dumps({"error": type(error).__name__, "what": error.what}), flush=True)
        sys.exit(error.exit_code)
