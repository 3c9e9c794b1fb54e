"""A disk that fills, and a state folder that is lost, at every record of a trial: nothing is left changed."""

import resource
import shutil
import signal
from contextlib import contextmanager

import pytest
from protected_trial import STOCK, seen, written
from test_bad_input import fill, small_disk
from test_guard import change, guarded

from ml_postgres_optimization.errors import JournalError
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.target.postgres.actuator import PostgresActuator

# intent, applied, verified, and what ends the trial
RECORDS = range(4)
# Each record is larger than what may remain of a block that is there.
TRIAL = "t" * 5000


@contextmanager
def no_file_grows(path):
    """Stand in for a full disk where none can be mounted: no file of ours may grow beyond what the journal has."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def folder_gone(path):
    shutil.rmtree(path.parent, ignore_errors=True)
    yield


@contextmanager
def folder_is_a_file(path):
    if path.parent.is_dir():
        path.parent.rename(path.parent.with_name("moved"))
        path.parent.write_text("somebody's")
    yield


@contextmanager
def disk_full(path):
    """Fill the small disk that the folder is on."""
    fill(path.parent)
    yield
    (path.parent / "filler").unlink()


def trial_with_a_fault(dsn, directory, monkeypatch, fault, number, *, confirm):
    """Try a change; from its record of this number on the journal is at fault."""
    with guarded(dsn, directory) as guard:
        journal, append, count = guard.journal, guard.journal.append, 0

        def append_or_fail(*arguments, **more):
            nonlocal count
            count += 1
            if count <= number:
                return append(*arguments, **more)
            with fault(journal.path):
                return append(*arguments, **more)

        monkeypatch.setattr(journal, "append", append_or_fail)
        if number == 0:
            monkeypatch.setattr(PostgresActuator, "write", lambda *_: pytest.fail("changed without a journal"))
        with guard.trial(change(guard), TRIAL) as trial:
            trial.apply()
            if confirm:
                trial.confirm()


@pytest.mark.parametrize(("number", "confirm"), [*((number, False) for number in RECORDS), (RECORDS[-1], True)])
@pytest.mark.parametrize("fault", [no_file_grows, folder_gone, folder_is_a_file])
def test_without_a_journal_nothing_stays_changed(server, tmp_path, monkeypatch, fault, number, confirm):
    directory = tmp_path / "of-the-server"
    with pytest.raises(JournalError) as stopped:
        trial_with_a_fault(server.dsn, directory, monkeypatch, fault, number, confirm=confirm)
    assert len(str(stopped.value).splitlines()) == 2
    assert seen(server.dsn, *STOCK) == STOCK and written(server) == []


@pytest.mark.parametrize("number", RECORDS)
def test_a_disk_that_is_full_stops_the_trial_and_the_next_start_finds_nothing_amiss(
    server, tmp_path, monkeypatch, number
):
    with small_disk(tmp_path / "disk", "64k") as directory:
        with pytest.raises(JournalError, match="No space left on device"):
            trial_with_a_fault(server.dsn, directory, monkeypatch, disk_full, number, confirm=False)
        assert seen(server.dsn, *STOCK) == STOCK and written(server) == []
        with Journal(directory) as journal:
            assert len(journal.state.trials) == min(number, 1)
