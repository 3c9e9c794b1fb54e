"""Which manager wants its settings in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ml_postgres_optimization.knobs.dialects.cloud import amazon_aurora, amazon_rds, azure, cloud_sql
from ml_postgres_optimization.knobs.dialects.files import configuration_file
from ml_postgres_optimization.knobs.dialects.item import Item
from ml_postgres_optimization.knobs.dialects.manifest import cloudnativepg, patroni

MANAGERS: Mapping[str, Callable[[Sequence[Item]], tuple[str, ...]]] = {
    "Patroni": patroni,
    "CloudNativePG": cloudnativepg,
    "Amazon RDS": amazon_rds,
    "Amazon Aurora": amazon_aurora,
    "Google Cloud SQL": cloud_sql,
    "Azure Database for PostgreSQL": azure,
}
"""The managers whose own way we know, by the names that ``Capabilities.managed_by`` gives them."""


def in_the_words_of(manager: str | None, items: Sequence[Item]) -> tuple[str, ...]:
    """Return the lines by which `manager` sets these settings; of one that we do not know, as a configuration file.

    Parameters
    ----------
    manager : str or None
        None where nobody manages the server, and ``ALTER SYSTEM`` is switched off.
    items : sequence of Item
        Nothing is returned for none.
    """
    if not items:
        return ()
    return MANAGERS.get(manager or "", configuration_file)(items)
