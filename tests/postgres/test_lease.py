"""Who stands by for a run, seen from the run: started, told, and sent home whatever comes in between."""

import signal
import subprocess
import sys

import pytest

from ml_postgres_optimization.errors import PrivilegeMissing, ServerUnreachable, TargetError
from ml_postgres_optimization.safety.protection import Duty, Lease
from ml_postgres_optimization.safety.protection import watchdog as watchdog_module
from ml_postgres_optimization.safety.protection.watchdog import Watchdog
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection

NO_PLACE = ServerUnreachable("There is no connection left.", "Free one.")
NO_DBLINK = PrivilegeMissing("The extension dblink is missing.", "CREATE EXTENSION dblink;")


class Refusing:
    """Opens no guard session, for one reason after the other."""

    def __init__(self, *reasons):
        self._reasons = [*reasons]
        self.told = []

    def __call__(self):
        raise self._reasons.pop(0)


@pytest.fixture
def lease_on(database, tmp_path):
    settings = ConnectionSettings.from_dsn(database)
    with LastingConnection(settings, "settings 0123") as session:
        duty = Duty(settings.keywords, tmp_path, 10.0, session.name)
        yield lambda refusing: Lease(session, duty, refusing, on_absence=refusing.told.append)


def test_it_is_told_whenever_no_guard_session_can_be_had_and_what_is_for_good_once(lease_on):
    refusing = Refusing(NO_PLACE, NO_DBLINK)
    with lease_on(refusing) as lease:
        lease.prepare()
        assert refusing.told == [NO_PLACE]
        for _ in range(2):
            assert lease.arm([], 60.0).by == ("watchdog",)
            assert refusing.told == [NO_PLACE, NO_DBLINK]


def test_ctrl_c_while_a_watchdog_is_started_leaves_none_behind(lease_on, monkeypatch, kill_the_watchdogs):
    spawned = watchdog_module._spawned
    kill_the_watchdogs()  # those that other tests have left

    def interrupted(log):
        process = spawned(log)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(watchdog_module, "_spawned", interrupted)
    with pytest.raises(KeyboardInterrupt), lease_on(Refusing(NO_DBLINK)) as lease:
        try:
            lease.arm([], 60.0)
        except KeyboardInterrupt as interruption:
            kept = interruption  # and with it all that it was raised in
            raise
    assert kept.__traceback__
    assert not kill_the_watchdogs()


def test_a_watchdog_that_says_nothing_is_not_waited_for_for_ever():
    silent = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    watchdog = Watchdog(silent)
    assert not watchdog.stands_by(within_seconds=0.05)
    watchdog.stand_down()
    assert not watchdog.stands_by(within_seconds=0.05)


def test_a_watchdog_that_ends_at_once_is_said(lease_on, monkeypatch):
    monkeypatch.setattr(watchdog_module, "_MODULE", "there_is_no_such_module")
    with lease_on(Refusing(NO_DBLINK)) as lease, pytest.raises(TargetError, match="watchdog"):
        lease.arm([], 60.0)
