"""Which entries of ``pg_stat_statements`` are our own: an idle server is not busy because we look at it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ml_postgres_optimization.telemetry import StatementCounters, StatementKey

ReadTexts = Callable[[Iterable[StatementKey]], Mapping[StatementKey, str]]

# pg_stat_statements keeps the comments of a query (seen on 14 to 18). Utility statements stand there as they were
# written or normalised, without a comment of ours; what touches our schema keeps or shows what we have recorded.
_OURS: Final = re.compile(
    r"""/\*\ genesis-pg\ \*/ | \bgenesis\.\w | \A\s*ALTER\s+SYSTEM\b | \A\s*SELECT\s+pg_reload_conf\(\)
        | \A\s*ALTER\s+ROLE\b.*\sIN\s+DATABASE\b""",
    re.VERBOSE | re.IGNORECASE,
)


class OwnStatements:
    """Remember which queries are ours, so that the text of each is read once.

    Parameters
    ----------
    read_texts : callable
        Gives the texts of the queries asked for; those that may not be read are absent, and taken for others'.
    """

    def __init__(self, read_texts: ReadTexts) -> None:
        self._read_texts = read_texts
        self._is_ours: dict[StatementKey, bool] = {}

    def left_out_of(
        self, statements: Mapping[StatementKey, StatementCounters]
    ) -> Mapping[StatementKey, StatementCounters]:
        """Return `statements` without ours."""
        new = statements.keys() - self._is_ours.keys()
        texts = self._read_texts(new) if new else {}
        # what was evicted is forgotten, else memory would grow as long as new queries come
        self._is_ours = {
            key: self._is_ours[key] if key in self._is_ours else bool(_OURS.search(texts.get(key, "")))
            for key in statements
        }
        return {key: counters for key, counters in statements.items() if not self._is_ours[key]}
