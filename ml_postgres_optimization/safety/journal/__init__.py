"""The journal of changes: on disk before anything is changed, so that whatever happens can be undone."""

from ml_postgres_optimization.safety.journal.decoding import decoded
from ml_postgres_optimization.safety.journal.disk import is_in_use
from ml_postgres_optimization.safety.journal.following import FollowedJournal
from ml_postgres_optimization.safety.journal.journal_file import Journal, read_contents, read_journal
from ml_postgres_optimization.safety.journal.records import (
    JournalledTrial,
    JournalState,
    KnobChange,
    Record,
    RecordKind,
    Terms,
    content_of,
    encoded,
    replayed,
)

__all__ = [
    "FollowedJournal",
    "Journal",
    "JournalState",
    "JournalledTrial",
    "KnobChange",
    "Record",
    "RecordKind",
    "Terms",
    "content_of",
    "decoded",
    "encoded",
    "is_in_use",
    "read_contents",
    "read_journal",
    "replayed",
]
