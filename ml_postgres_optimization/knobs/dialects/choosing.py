"""Which manager wants its settings in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ml_postgres_optimization.knobs.dialects.cloud import amazon_aurora, amazon_rds, azure, cloud_sql
from ml_postgres_optimization.knobs.dialects.files import configuration_file
from ml_postgres_optimization.knobs.dialects.item import Item
from ml_postgres_optimization.knobs.dialects.manifest import cloudnativepg, patroni
from ml_postgres_optimization.knobs.knob import KnobValue

_CLOUD_SQL = "Google Cloud SQL"
_CACHE, _COMPRESSION = "effective_cache_size", "wal_compression"

MANAGERS: Mapping[str, Callable[[Sequence[Item]], tuple[str, ...]]] = {
    "Patroni": patroni,
    "CloudNativePG": cloudnativepg,
    "Amazon RDS": amazon_rds,
    "Amazon Aurora": amazon_aurora,
    _CLOUD_SQL: cloud_sql,
    "Azure Database for PostgreSQL": azure,
}
"""The managers whose own way we know, by the names that ``Capabilities.managed_by`` gives them."""


_LARGEST_CACHE_RATIO = 0.7
_CACHE_BYTES = 8192


def accepted_by(
    manager: str | None, values: Mapping[str, KnobValue], memory_bytes: int
) -> tuple[dict[str, KnobValue], dict[str, str]]:
    """Return what of these values `manager` takes, and why it differs: one that it refuses would take all with it.

    Parameters
    ----------
    manager : str or None
    values : mapping of str to KnobValue
        In the units of ``pg_settings``.
    memory_bytes : int
        Of the instance.

    References
    ----------
    Google, "Configure database flags" (Cloud SQL for PostgreSQL), as we know it, not tried: ``effective_cache_size``
    from 10 to 70 % of the instance's memory, ``wal_compression`` on or off.
    """
    taken, reasons = dict(values), {}
    if manager == _CLOUD_SQL:
        if (
            isinstance(blocks := taken.get(_CACHE), int)
            and blocks * _CACHE_BYTES > _LARGEST_CACHE_RATIO * memory_bytes
        ):
            taken[_CACHE] = int(_LARGEST_CACHE_RATIO * memory_bytes) // _CACHE_BYTES
            reasons[_CACHE] = "70 % of the memory, the most that Cloud SQL takes"
        if _COMPRESSION in taken and taken[_COMPRESSION] not in (False, "off"):
            taken[_COMPRESSION] = "on"
    return taken, reasons


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
