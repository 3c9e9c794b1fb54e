"""Whatever a crash leaves of a journal, what it says of whole records holds."""

from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.safety.journal import (
    JournalState,
    KnobChange,
    Record,
    RecordKind,
    encoded,
    read_contents,
    replayed,
)

# No text of PostgreSQL's holds NUL.
TEXTS = st.text(alphabet='aZ09 "\\\n\té', max_size=4)
VALUES = st.one_of(st.booleans(), st.integers(-1, 1 << 40), st.floats(-1e9, 1e9), TEXTS)
KNOBS = st.builds(KnobChange, TEXTS, st.one_of(st.none(), TEXTS), VALUES, VALUES)
LIVES = st.sampled_from(
    [
        ["intent"],
        ["intent", "reverted"],
        ["intent", "applied", "withdrawn", "applied"],
        ["intent", "applied", "confirmed"],
        ["intent", "applied", "confirmed", "reopened"],
        ["intent", "applied", "confirmed", "reopened", "reverted"],
    ]
)


@st.composite
def histories(draw):
    """Records as trials, one after another, leave them."""
    records = []
    for number, life in enumerate(draw(st.lists(LIVES, max_size=3))):
        for kind in life:
            knobs = draw(st.lists(KNOBS, max_size=2)) if kind == "intent" else []
            foreign = draw(st.dictionaries(TEXTS, TEXTS, max_size=1))
            records.append(
                Record(RecordKind(kind), f"t{number}", "2026-01-01T00:00:00+00:00", 1, tuple(knobs), foreign)
            )
    return records


@given(records=histories(), data=st.data())
def test_every_prefix_replays_to_the_state_after_its_last_whole_record(records, data):
    lines = [encoded(record) for record in records]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    kept, length = 0, 0
    while kept < len(lines) and length + len(lines[kept]) <= cut:
        length += len(lines[kept])
        kept += 1
    contents = read_contents(whole[:cut])
    assert contents.state == replayed(records[:kept])
    assert contents.whole_bytes == length


@given(records=histories(), zeros=st.integers(0, 5000), data=st.data())
def test_blocks_that_were_never_written_count_as_torn(records, zeros, data):
    """A crash can leave a file that has grown, and whose last blocks are zeros from somewhere in its last line on."""
    lines = [encoded(record) for record in records] or [b""]
    reached = data.draw(st.integers(0, max(0, len(lines[-1]) - 1)))
    contents = read_contents(b"".join(lines[:-1]) + lines[-1][:reached] + b"\0" * zeros)
    assert contents.state == replayed(records[:-1])


@given(records=histories().filter(lambda records: len(records) > 1), data=st.data())
def test_no_bit_that_flips_before_the_last_record_goes_unseen(records, data):
    lines = [encoded(record) for record in records]
    whole = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(whole) - len(lines[-1]) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        state = read_contents(bytes(whole)).state
    except ValueError:
        return
    raise AssertionError(f"read as {state}")


def test_nothing_replays_to_nothing():
    assert read_contents(b"").state == JournalState()
