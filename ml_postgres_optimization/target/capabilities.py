"""What a server is and lets us do, as an object with questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this server is and lets us do.

    Parameters
    ----------
    version_num : int
        ``server_version_num``: 150018 is 15.18.
    version : str
    system_identifier : str
        From the control file where readable, else a stable stand-in made of host and port.
    database, role : str
    is_superuser, is_owner : bool
        `is_owner`: of the database, so that it may create schema genesis.
    connection_limit : int or None
        How many sessions our role may have in this database; None where neither is limited.
    is_monitor : bool
        Member of ``pg_monitor`` (or superuser): sees the sessions of others.
    in_recovery, read_only : bool
    extensions : mapping of str to (version, schema)
        Installed in this database.
    available_extensions : frozenset of str
        Could be installed.
    preloaded : tuple of str or None
        ``shared_preload_libraries``, in the order in which they are loaded; None where the role may not see it.
    may_alter_system : bool or frozenset of str
        True: everything; a set: those parameters (grants, from 15 on); empty: nothing.
    may_reload : bool
    alter_system_allowed : bool
        False where ``allow_alter_system`` is off (17+).
    managed_by : str or None
        ``Patroni``, ``CloudNativePG``, ``Amazon RDS``, … where somebody else manages the configuration.
    settings_visible : bool
        Whether ``pg_settings.sourcefile`` and ``pg_file_settings`` can be read.
    workers : frozenset of str
        Who had a session when we looked, ours aside: ``role@database``.
    own_settings : mapping of str to frozenset of str
        Parameter → those of `workers` to whom ``ALTER ROLE`` or ``ALTER DATABASE`` gives a value of their own, which
        wins over the server's.
    """

    version_num: int
    version: str
    system_identifier: str
    database: str
    role: str
    is_superuser: bool = False
    is_owner: bool = False
    connection_limit: int | None = None
    is_monitor: bool = False
    in_recovery: bool = False
    read_only: bool = False
    extensions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    available_extensions: frozenset[str] = frozenset()
    preloaded: tuple[str, ...] | None = None
    may_alter_system: bool | frozenset[str] = False
    may_reload: bool = False
    alter_system_allowed: bool = True
    managed_by: str | None = None
    settings_visible: bool = False
    workers: frozenset[str] = frozenset()
    own_settings: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def reaches_nobody(self, name: str) -> bool:
        """Tell whether every worker has a value of its own for a parameter, so that the server's is no use to any."""
        return bool(self.workers) and self.own_settings.get(name, frozenset()) == self.workers

    @property
    def major(self) -> int:
        """Major version: 15 for 15.18."""
        return self.version_num // 10000

    @property
    def grantee(self) -> str:
        """The role's name as SQL, for a statement that a user can paste."""
        return '"' + self.role.replace('"', '""') + '"'

    def may_change(self, name: str) -> bool:
        """Tell whether `name` may be set by ``ALTER SYSTEM`` and take effect by a reload."""
        if not (self.alter_system_allowed and self.may_reload) or self.managed_by:
            return False
        if isinstance(self.may_alter_system, bool):
            return self.may_alter_system
        return name in self.may_alter_system

    def has_extension(self, name: str) -> bool:
        """Tell whether `name` is installed in this database."""
        return name in self.extensions
