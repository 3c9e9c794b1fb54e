"""The journal of changes on disk."""

import json
import math
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from ml_postgres_optimization.errors import AlreadyRunning, JournalError, StateError
from ml_postgres_optimization.safety.journal import (
    FollowedJournal,
    Journal,
    KnobChange,
    RecordKind,
    Terms,
    content_of,
    decoded,
    encoded,
    read_contents,
    read_journal,
)
from ml_postgres_optimization.telemetry import VirtualClock

KNOBS = (
    KnobChange("jit", None, True, False),
    KnobChange("work_mem", "8MB", 8192, 65536),
    KnobChange("hash_mem_multiplier", None, 2.0, 2.34568),
    KnobChange("wal_compression", "off", "off", "lz4"),
)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "servers" / "7300000000000000000"


@pytest.fixture
def journal(directory):
    with Journal(directory, clock=VirtualClock()) as journal:
        yield journal


def begun(journal, *trial_ids):
    for trial_id in trial_ids:
        journal.append(RecordKind.INTENT, trial_id, KNOBS)


def confirmed(journal, *trial_ids):
    for trial_id in trial_ids:
        begun(journal, trial_id)
        journal.append(RecordKind.APPLIED, trial_id)
        journal.append(RecordKind.CONFIRMED, trial_id)


def test_what_was_written_is_read_again(journal, directory):
    begun(journal, "t1")
    journal.append(RecordKind.APPLIED, "t1")
    journal.append(RecordKind.WITHDRAWN, "t1", foreign={"jit": "on"})
    (trial,) = read_journal(directory).unfinished
    assert trial.intent.knobs == KNOBS
    assert trial.status is RecordKind.WITHDRAWN
    assert (trial.intent.at, trial.intent.pid) == ("2026-01-01T00:00:00+00:00", os.getpid())
    assert read_journal(directory) == journal.state


def test_a_record_survives_its_line(journal):
    record = journal.append(RecordKind.INTENT, "tränengas", KNOBS)
    assert decoded(encoded(record)[:-1]) == record
    assert journal.path.read_bytes() == encoded(record)


@pytest.mark.parametrize(
    ("kinds", "unfinished", "in_force"),
    [
        (["intent"], True, False),
        (["intent", "applied"], True, False),
        (["intent", "armed", "applied", "verified"], True, False),
        (["intent", "applied", "withdrawn", "applied"], True, False),
        (["intent", "applied", "confirmed"], False, True),
        (["intent", "reverted"], False, False),
        (["intent", "applied", "confirmed", "reopened"], True, False),
        (["intent", "applied", "confirmed", "reopened", "reverted"], False, False),
    ],
)
def test_a_trial_is_unfinished_until_it_is_confirmed_or_reverted(journal, kinds, unfinished, in_force):
    for kind in kinds:
        journal.append(RecordKind(kind), "t1", KNOBS if kind == "intent" else ())
    assert bool(journal.state.unfinished) is unfinished
    assert bool(journal.state.confirmed) is in_force


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ([], "applied"),
        (["intent"], "intent"),
        (["intent", "reverted"], "applied"),
        (["intent", "reverted"], "intent"),
        (["intent"], "reopened"),
        (["intent"], "verified"),
        (["intent", "confirmed"], "confirmed"),
        (["intent", "confirmed"], "reverted"),
    ],
)
def test_what_cannot_follow_is_not_written(journal, before, kind):
    for earlier in before:
        journal.append(RecordKind(earlier), "t1")
    size = journal.path.stat().st_size
    with pytest.raises(ValueError):
        journal.append(RecordKind(kind), "t1")
    assert journal.path.stat().st_size == size


@pytest.mark.parametrize("longest_seconds", [5400.0, math.inf])
def test_the_terms_survive_their_line(journal, longest_seconds):
    begun(journal, "t1")
    record = journal.append(RecordKind.ARMED, "t1", terms=Terms(("watchdog",), "2026/17", longest_seconds))
    assert decoded(encoded(record)[:-1]) == record


def test_a_journal_of_the_format_before_is_read(directory, monkeypatch):
    monkeypatch.setattr("ml_postgres_optimization.safety.journal.records.FORMAT", 1)
    with Journal(directory) as journal:
        confirmed(journal, "t1")
    monkeypatch.undo()
    with Journal(directory) as journal:
        assert [trial.intent.trial_id for trial in journal.state.confirmed] == ["t1"]


def test_a_record_is_shown_elsewhere_in_the_format_in_which_it_was_written(directory, monkeypatch):
    monkeypatch.setattr("ml_postgres_optimization.safety.journal.records.FORMAT", 1)
    with Journal(directory) as journal:
        shown = content_of(journal.append(RecordKind.INTENT, "t1", KNOBS))
    monkeypatch.undo()
    with Journal(directory) as journal:
        assert [content_of(record) for record in journal.unmirrored] == [shown]


def test_only_we_can_read_it(journal, directory):
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_a_folder_that_others_can_enter_is_closed_to_them(directory):
    directory.mkdir(parents=True, mode=0o755)
    Journal(directory).close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_there_is_one_writer_at_a_time(journal, directory):
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        Journal(directory)
    journal.append(RecordKind.INTENT, "t1")


def test_the_next_writer_goes_on_where_the_last_one_ended(directory):
    with Journal(directory) as journal:
        begun(journal, "t1")
    with Journal(directory) as journal:
        journal.append(RecordKind.REVERTED, "t1")
        assert journal.notice is None
    assert read_journal(directory).unfinished == ()


def test_no_journal_is_an_empty_one(tmp_path):
    assert read_journal(tmp_path).trials == {}


@pytest.mark.parametrize("tail", [b"00000120 1234abcd {", b"\0" * 300, b"0000\0\0\0\0\n", b"\0", b"{"])
def test_a_torn_tail_is_cut_off_and_said(directory, tail):
    with Journal(directory) as journal:
        begun(journal, "t1")
        whole = journal.path.read_bytes()
        journal.path.write_bytes(whole + tail)
    with Journal(directory) as journal:
        assert f"The last {len(tail)} bytes" in journal.notice
        assert journal.path.read_bytes() == whole
        journal.append(RecordKind.REVERTED, "t1")
    assert read_journal(directory).unfinished == ()


def test_damage_in_the_middle_stops_everything(directory):
    with Journal(directory) as journal:
        confirmed(journal, "t1", "t2")
        data = bytearray(journal.path.read_bytes())
        path = journal.path
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalError, match="cannot be trusted: damaged at byte 0"):
        Journal(directory)
    with pytest.raises(JournalError, match="put back by hand"):
        read_journal(directory)
    assert path.read_bytes() == data, "nothing is mended that is not understood"
    path.unlink()
    Journal(directory).close()


def test_a_last_record_that_was_whole_and_is_damaged_is_no_torn_tail(directory):
    with Journal(directory) as journal:
        confirmed(journal, "t1")
        begun(journal, "t2")
        data = journal.path.read_bytes()
        path = journal.path
    path.write_bytes(data[:-10] + b"x" + data[-9:])
    with pytest.raises(JournalError, match="length or checksum do not fit"):
        Journal(directory)


@pytest.mark.parametrize("how", ["flip", "high bit", "NUL", "newline", "cut", "insert"])
def test_the_last_record_damaged_at_any_byte_is_refused_or_torn_and_never_misread(directory, how):
    with Journal(directory) as journal:
        confirmed(journal, "t1")
        before, whole_before = journal.state, journal.path.stat().st_size
        begun(journal, "t2")
        data = journal.path.read_bytes()
    for at in range(whole_before, len(data)):
        damaged = {
            "flip": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
            "high bit": data[:at] + bytes([data[at] ^ 128]) + data[at + 1 :],
            "NUL": data[:at] + b"\0" + data[at + 1 :],
            "newline": data[:at] + b"\n" + data[at + 1 :],
            "cut": data[:at],
            "insert": data[:at] + b"0" + data[at:],
        }[how]
        if damaged == data:
            continue
        is_torn = how == "cut" or (how == "NUL" and at == len(data) - 1)
        try:
            contents = read_contents(damaged)
        except ValueError as error:
            assert "damaged at byte" in str(error) and not is_torn
        else:
            assert is_torn and contents.state == before and contents.whole_bytes == whole_before


@pytest.mark.parametrize("take_away", ["folder", "file", "another file", "a link"])
def test_a_journal_that_was_taken_away_takes_nothing_more(journal, directory, take_away):
    confirmed(journal, "t1")
    state, data = journal.state, journal.path.read_bytes()
    if take_away == "folder":
        shutil.rmtree(directory)
    else:
        journal.path.rename(directory / "moved")
        if take_away == "another file":
            journal.path.write_bytes(data)
        if take_away == "a link":
            journal.path.symlink_to(directory / "moved")
    with pytest.raises(JournalError, match="nothing was changed"):
        begun(journal, "t2")
    assert journal.state == state


def test_a_folder_of_another_user_is_refused(directory):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    directory.mkdir(parents=True)
    os.chown(directory, 65534, 65534)
    with pytest.raises(StateError, match="belongs to user id 65534"):
        Journal(directory)


@pytest.mark.parametrize(
    "change",
    [
        {"trial": []},
        {"trial": "a\0b"},
        {"trial": "\ud800"},
        {"at": "yesterday"},
        {"pid": "1"},
        {"format": True},
        {"kind": ["intent"]},
        {"knobs": {}},
        {"knobs": [1]},
        {"knobs": [{"name": "jit", "old_written": 1, "old": True, "new": False}]},
        {"knobs": [{"name": "jit", "old_written": None, "old": [], "new": False}]},
        {"knobs": [{"name": "jit", "old_written": None, "old": 10**400, "new": False}]},
        {"knobs": [{"name": "jit", "old_written": None, "old": math.nan, "new": False}]},
        {"foreign": {"jit": 1}},
        {"foreign": 5},
        {"terms": {"by": "x", "epoch": "e", "longest_seconds": 1}},
    ],
)
def test_what_we_could_not_have_written_is_refused_though_its_checksum_fits(directory, journal, change):
    content = {**content_of(journal.append(RecordKind.INTENT, "t1", KNOBS)), **change}
    body = json.dumps(content).encode()
    with pytest.raises(ValueError):
        decoded(b"%08d %08x %s" % (len(body), zlib.crc32(body), body))


def test_a_line_that_is_nested_without_end_is_refused():
    body = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(ValueError, match="nested too deeply"):
        decoded(b"%08d %08x %s" % (len(body), zlib.crc32(body), body))


def test_a_bit_that_flipped_to_nul_is_no_torn_tail(directory):
    with Journal(directory) as journal:
        begun(journal, "t1")
        data = journal.path.read_bytes()
        journal.path.write_bytes(data.replace(b" ", b"\0", 1))
    with pytest.raises(JournalError, match="damaged at byte 0"):
        Journal(directory)


def test_zeros_followed_by_a_record_are_no_torn_tail(directory):
    with Journal(directory) as journal:
        begun(journal, "t1")
        data = journal.path.read_bytes()
        journal.path.write_bytes(b"\0" * 50 + b"\n" + data)
    with pytest.raises(JournalError, match="damaged at byte 0"):
        Journal(directory)


def test_a_journal_of_a_newer_program_is_not_guessed_at(directory, monkeypatch):
    monkeypatch.setattr("ml_postgres_optimization.safety.journal.records.FORMAT", 4)
    with Journal(directory) as journal:
        begun(journal, "t1")
    monkeypatch.undo()
    with pytest.raises(JournalError, match="format 4, and this program knows formats up to 3"):
        Journal(directory)


def test_each_record_is_on_disk_when_append_returns(directory, monkeypatch):
    """After opening, each append writes once and then syncs that same file; the folder was synced before."""
    calls = []
    write, sync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda file, data: (calls.append(("write", file)), write(file, data))[1])
    monkeypatch.setattr(
        os, "fsync", lambda file: (calls.append(("sync", str(Path(f"/proc/self/fd/{file}").readlink()))), sync(file))
    )
    with Journal(directory) as journal:
        assert ("sync", str(directory)) in calls
        assert ("sync", str(directory.parent)) in calls
        del calls[:]
        begun(journal, "t1")
        assert [kind for kind, _ in calls] == ["write", "sync"]
        assert calls[1] == ("sync", str(journal.path))


@pytest.mark.parametrize("has_links", [True, False])
def test_it_begins_anew_when_it_is_large_and_keeps_what_a_rollback_needs(directory, monkeypatch, has_links):
    if not has_links:  # FAT, say

        def refused(_path, _target):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refused)
    with Journal(directory, large_bytes=1500) as journal:
        confirmed(journal, "t1", "t2")
        begun(journal, "t3")
        journal.append(RecordKind.REVERTED, "t3")
        assert journal.path.stat().st_size > 1500
        before = journal.path.read_bytes()
        begun(journal, "t4")
        assert journal.path.stat().st_size < len(before)
        assert (directory / "journal.1").read_bytes() == before
        assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
        state = journal.state
    assert [trial.intent.trial_id for trial in state.confirmed] == ["t1", "t2"]
    assert [trial.intent.trial_id for trial in state.unfinished] == ["t4"]
    assert read_journal(directory) == state


def test_it_does_not_begin_anew_while_something_is_unfinished(directory):
    with Journal(directory, large_bytes=100) as journal:
        begun(journal, "t1", "t2")
        assert not (directory / "journal.1").exists()
        assert len(journal.state.unfinished) == 2


@contextmanager
def largest_file(size_bytes):
    """Stand in for a full disk: no file may grow beyond `size_bytes`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_journal_as_it_was(journal, directory):
    confirmed(journal, "t1")
    whole, state = journal.path.read_bytes(), journal.state
    with largest_file(len(whole) + 50), pytest.raises(JournalError, match="nothing was changed"):
        begun(journal, "t2")
    assert journal.path.read_bytes() == whole, "the half of the line that fitted is taken back"
    assert journal.state == state
    begun(journal, "t2")
    assert read_journal(directory) == journal.state


def test_a_full_file_system_is_survived_and_does_not_keep_the_next_writer_out(directory):
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system; the test with a limit on files stands in")
    try:
        with Journal(directory) as journal:
            begun(journal, "t1")
            with (directory / "ballast").open("wb") as ballast, pytest.raises(OSError, match="No space"):
                ballast.write(b"x" * (1 << 20))
            with pytest.raises(JournalError, match="No space left on device"):
                journal.append(RecordKind.APPLIED, "t1", KNOBS * 60)
        with Journal(directory) as journal:
            assert [trial.status for trial in journal.state.unfinished] == [RecordKind.INTENT]
            (directory / "ballast").unlink()
            journal.append(RecordKind.REVERTED, "t1")
    finally:
        subprocess.run(["umount", directory], check=True)


def test_after_a_failed_sync_nothing_more_is_believed(journal, monkeypatch):
    def fail(_file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(JournalError, match="Input/output error"):
        begun(journal, "t1")
    monkeypatch.undo()
    with pytest.raises(JournalError, match="its end is not certain"):
        begun(journal, "t1")


def test_an_unusable_folder_is_a_matter_of_settings(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="GENESIS_HOME"):
        Journal(tmp_path / "file" / "7300000000000000000")


def test_a_link_is_not_followed(directory, tmp_path):
    directory.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("precious")
    (directory / "journal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError):
        Journal(directory)
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_the_lock_ends_with_its_process(directory):
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from ml_postgres_optimization.safety.journal import Journal, RecordKind;"
        "journal = Journal(Path(sys.argv[1])); journal.append(RecordKind.INTENT, 't1');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(directory)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with Journal(directory) as journal:
        assert len(journal.state.unfinished) == 1


def test_who_reads_along_gets_each_record_once_and_again_what_a_new_file_kept(directory):
    followed = FollowedJournal(directory)
    assert followed.new() == ()
    with Journal(directory, large_bytes=1500) as journal:
        begun(journal, "t1")
        assert [record.trial_id for record in followed.new()] == ["t1"]
        assert followed.new() == ()
        with journal.path.open("ab") as file:
            file.write(b"00000100 torn")
        assert followed.new() == ()
    with Journal(directory, large_bytes=100) as journal:
        journal.append(RecordKind.REVERTED, "t1")
        begun(journal, "t2")  # in a file that is begun anew
        journal.append(RecordKind.CONFIRMED, "t2")
        kinds = [(record.trial_id, record.kind) for record in followed.new()]
        assert kinds == [
            ("t1", RecordKind.REVERTED),
            ("t2", RecordKind.INTENT),
            ("t2", RecordKind.CONFIRMED),
        ]
        begun(journal, "t3")
        assert [record.trial_id for record in followed.new()] == ["t2", "t2", "t3"], "what was kept comes again"
        assert not followed.has_missed
        (directory / "journal.1").unlink()
        journal.append(RecordKind.REVERTED, "t3")
        begun(journal, "t4")
        (directory / "journal.1").unlink()
        followed.new()
        assert followed.has_missed
    (directory / "journal").write_bytes(b"no record\n" * 999)
    with pytest.raises(JournalError, match="damaged"):
        followed.new()
