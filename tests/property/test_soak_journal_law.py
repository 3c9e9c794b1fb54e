"""The law of a soak's journal: whatever becomes of its file, it says what was written, or that it cannot."""

import io
import json
import math
import shutil
import tracemalloc
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from ml_postgres_optimization.errors import AlreadyRunning, JournalError
from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal import (
    FILE,
    Begun,
    ClockMark,
    Ending,
    Left,
    Measured,
    RunDescription,
    RunJournal,
    Totals,
    read_run,
    recover,
)
from ml_postgres_optimization.soak.journal.columns import packed
from ml_postgres_optimization.soak.journal.description import FORMAT
from ml_postgres_optimization.soak.journal.framing import MAGIC, MAXIMUM_BYTES, RecordKind, framed, records
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, Window

AT = datetime(2026, 1, 1, tzinfo=UTC)
DESCRIPTION = RunDescription("run-1", "7", "shop", "localhost", "17.2", AT, 100.0, 10.0, 1, {"rate_per_second": 5.0})
INTERVALS = 6


def window(number: int) -> Window:
    began = AT + timedelta(seconds=10 * number)
    times = [0.001 * (number + 1), 0.002, 7000.0]
    return Window(
        began,
        began + timedelta(seconds=10),
        "stock",
        labels={"run": "run-1"},
        rates={"load.due_per_second": 12345.7, "wal.bytes_per_second": 0.5},
        gauges={"host.load": float(number)},
        waits={"CPU": 1.5},
        operations={"read": OperationWindow(Histogram.of(times), Histogram.of(times[:1]), number % 2)},
        lag=Histogram.of([1e-4] * 300),
        errors={"40001": number % 2},
        skipped_total=number,
        ambiguous_total=1,
    )


def interval(number: int, epoch: int = 1) -> Interval:
    one = window(number)
    event = Event(EventKind.FAULT, "a fault", one.started_at, one.ended_at)
    return Interval(
        number, epoch, IntervalState.MEASURED, one.started_at, one.ended_at, one, {"client.rss_bytes": 1e8}, (event,)
    )


def write(journal: RunJournal, numbers, *, leaves: bool = False) -> None:
    epoch = journal.state.epoch + 1
    journal.append(Begun(epoch, AT))
    totals = journal.state.totals
    for number in numbers:
        totals = totals.after(window(number), written_total=2)
        journal.append(Measured(interval(number, epoch), totals, ClockMark("boot", 5.0, 10.0 * number + 10)))
    if leaves:
        journal.append(Left(Ending.STOPPED, AT))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A journal of six intervals by a runner that was killed, and where each record ends."""
    folder = tmp_path_factory.mktemp("soaks") / DESCRIPTION.run
    ends = []
    with RunJournal(folder, DESCRIPTION) as journal:
        ends.append((folder / FILE).stat().st_size)
        epoch = journal.state.epoch
        assert epoch == 0
        journal.append(Begun(1, AT))
        totals = Totals()
        for number in range(INTERVALS):
            ends.append((folder / FILE).stat().st_size)
            totals = totals.after(window(number), written_total=2)
            journal.append(Measured(interval(number), totals, ClockMark("boot", 5.0, 10.0 * number + 10)))
        ends.append((folder / FILE).stat().st_size)
    return folder, ends


@pytest.fixture(scope="module")
def copied(written, tmp_path_factory):
    """Make a copy of that journal with other bytes."""

    def make(data: bytes):
        folder = tmp_path_factory.mktemp("copy") / DESCRIPTION.run
        shutil.copytree(written[0], folder)
        (folder / FILE).write_bytes(data)
        return folder

    return make


def test_what_is_read_back_is_what_was_written(written):
    run = read_run(written[0])
    assert run.description == DESCRIPTION
    found = [*run.intervals]
    assert found == [interval(number) for number in range(INTERVALS)] == [*run.intervals]
    state = recover(written[0]).state
    assert (state.last_number, state.epoch, state.ending, state.totals.written_total) == (5, 1, None, 12)
    assert state.whole.response.total == 18
    assert state.whole.due_total == 6 * 123457


@bounded(max_examples=60)
@given(st.data())
def test_any_prefix_is_recovered_up_to_its_last_whole_record(written, copied, data):
    folder, ends = written
    whole = (folder / FILE).read_bytes()
    length = data.draw(st.integers(0, len(whole)))
    cut = copied(whole[:length])
    kept = sum(end <= length for end in ends) - 2
    if length < ends[0]:
        with pytest.raises(JournalError, match="does not begin"):
            read_run(cut)
        return
    assert [one.number for one in read_run(cut).intervals] == [*range(max(0, kept))]
    with RunJournal(cut) as journal:
        assert journal.state.last_number == max(-1, kept - 1)
        assert (cut / FILE).stat().st_size == max(end for end in ends if end <= length)
        write(journal, [kept + 2])
    states = [one.state for one in read_run(cut).intervals]
    first = IntervalState.LOST if length >= ends[1] else IntervalState.CLIENT_DOWN
    assert (
        states[max(0, kept) :]
        == [first, IntervalState.CLIENT_DOWN, IntervalState.MEASURED][-(kept + 3 - max(0, kept)) :]
    )


@bounded(max_examples=60)
@given(st.data())
def test_any_byte_may_be_another_one(written, copied, data):
    folder, ends = written
    whole = bytearray((folder / FILE).read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    damaged = copied(bytes(whole))
    if place < ends[0]:
        with pytest.raises(JournalError, match="does not begin"):
            read_run(damaged)
        return
    hit = sum(end <= place for end in ends) - 2
    found = [*read_run(damaged).intervals]
    expected = [interval(number) for number in range(INTERVALS)]
    if hit == INTERVALS - 1:
        assert found == expected[:-1], "the last record is cut off"
    elif hit >= 0:
        assert found[hit].state is IntervalState.LOST and found[hit].window is None
        assert [*found[:hit], *found[hit + 1 :]] == [*expected[:hit], *expected[hit + 1 :]]
    else:
        assert found == expected


def test_a_snapshot_stands_for_what_came_before_it_and_for_a_description_that_is_damaged(written, copied):
    whole = (written[0] / FILE).read_bytes()
    folder = copied(whole)
    with RunJournal(folder) as journal:
        for _ in range(3):
            journal.snapshot()
        write(journal, [7], leaves=True)
        journal.snapshot()
        journal.append(Left(Ending.FINISHED, AT))
        journal.snapshot()
    assert len([*folder.glob("snapshot-*")]) == 2
    before = recover(folder)
    data = bytearray((folder / FILE).read_bytes())
    data[10] ^= 255
    (folder / FILE).write_bytes(bytes(data))
    after = recover(folder)
    assert (after.description, replace(after.state, whole=None)) == (DESCRIPTION, replace(before.state, whole=None))
    assert after.state.whole.response == before.state.whole.response
    assert after.state.totals.written_total == 2, "the ledger of an epoch counts from its beginning"
    for path in folder.glob("snapshot-*"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JournalError, match="does not begin"):
        recover(folder)


def test_a_journal_of_another_version_or_run_is_refused(written, copied, tmp_path):
    whole = (written[0] / FILE).read_bytes()
    foreign = tmp_path / "run-2"
    shutil.copytree(written[0], foreign)
    with pytest.raises(JournalError, match="run-2"):
        read_run(foreign)
    newer = framed(RecordKind.RUN, DESCRIPTION.to_bytes().replace(b'"format": 3', b'"format": 4'), DESCRIPTION.run)
    with pytest.raises(JournalError, match="format 4"):
        read_run(copied(newer + whole[len(newer) :]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(JournalError, match="cannot be used"):
        read_run(tmp_path / "empty")


def test_what_nobody_wrote_before_the_time_was_over_is_lost_or_without_a_runner(tmp_path):
    with RunJournal(tmp_path / DESCRIPTION.run, DESCRIPTION) as journal:
        write(journal, range(3))
        journal.append(Begun(2, AT, 10, lost_until=4))
        journal.append(Left(Ending.FINISHED, AT, "The run's time was over."))
    states = [one.state for one in read_run(tmp_path / DESCRIPTION.run).intervals]
    assert states == [IntervalState.MEASURED] * 3 + [IntervalState.LOST] * 2 + [IntervalState.CLIENT_DOWN] * 5


def test_a_format_has_one_dictionary():
    """Whoever changes names.txt makes a format of it: what was written by the other one cannot be unpacked."""
    dictionary = (files("ml_postgres_optimization.soak.journal") / "names.txt").read_bytes()
    assert (FORMAT, zlib.crc32(dictionary)) == (3, 0xD2620616)


def test_two_runners_cannot_have_one_journal(written):
    with RunJournal(written[0]), pytest.raises(AlreadyRunning):
        RunJournal(written[0])


@pytest.mark.parametrize("content", [{"number": " " * (80 << 20)}, {}], ids=["in its names", "in its columns"])
def test_a_record_that_would_fill_the_memory_is_damage(written, copied, content):
    whole = (written[0] / FILE).read_bytes()
    bomb = framed(RecordKind.INTERVAL, packed(content, b"" if content else bytes(80 << 20)), DESCRIPTION.run)
    tracemalloc.start()
    found = [*read_run(copied(whole + bomb + bomb)).intervals]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [interval(number) for number in range(INTERVALS)]
    assert peak < 70 << 20


class Counted(io.BytesIO):
    """Counts what is read of it."""

    read_total = 0

    def read(self, size=-1):
        data = super().read(size)
        self.read_total += len(data)
        return data


def test_damage_that_looks_like_records_is_not_read_for_ever(written):
    whole = (written[0] / FILE).read_bytes()
    ends = written[1]
    fakes = b"".join(
        MAGIC + bytes([RecordKind.INTERVAL]) + length.to_bytes(4, "little") + b"\0\0\0\0"
        for length in (MAXIMUM_BYTES, 1 << 20, 40_000, 5_000, 100)
    )
    damage = fakes * 20_000
    file = Counted(whole[: ends[3]] + damage + whole[ends[3] :])
    found = [*records(file, DESCRIPTION.run)]
    assert file.read_total < 7 * len(damage) + 2 * MAXIMUM_BYTES
    assert len(found) >= len(ends) - 1, "one record at most is given up besides"
    assert sum(record.damaged_before for record in found) >= len(damage)


@pytest.mark.parametrize(
    "made_up",
    [{"interval_seconds": 0.0}, {"duration_seconds": math.inf}, {"load": []}, {"run": 7}, {"seed": "x" * 9}],
)
def test_a_description_of_no_run_is_refused(made_up):
    stated = json.loads(DESCRIPTION.to_bytes()) | made_up
    with pytest.raises(JournalError, match="does not fit"):
        RunDescription.from_bytes(json.dumps(stated).encode())
