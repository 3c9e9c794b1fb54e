"""One thing that can be set."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import IntEnum

KnobValue = bool | int | float | str
# What a load does, or does not, on which the effect of knobs hangs.
ACTIVITIES = frozenset({"wal", "block_reads", "long_statements"})


class Scope(IntEnum):
    """How a knob takes effect, cheapest and safest first."""

    CLIENT = 0
    SESSION = 1
    ROLE = 2
    DATABASE = 3
    RELOAD = 4
    RESTART = 5


_COMPARISONS = {"=": operator.eq, "!=": operator.ne, ">": operator.gt}


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of another knob's value for a knob to have any effect.

    Parameters
    ----------
    knob : str
        Name of the other one.
    comparison : str
        ``=``, ``!=`` or ``>``.
    value : str
        A number in the other knob's base unit, ``on`` or ``off``, or a choice.

    Examples
    --------
    >>> condition = Condition.parse("commit_delay > 0")
    >>> condition.holds(10), condition.holds(0)
    (True, False)
    >>> Condition.parse("jit = on").holds(True)
    True
    """

    knob: str
    comparison: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read it as the catalogue writes it.

        Raises
        ------
        ValueError
            If it is not a name, a comparison and a value, or if no number stands behind ``>``.
        """
        words = text.split()
        if len(words) != 3 or words[1] not in _COMPARISONS:
            raise ValueError(f"{text!r} is not a knob, one of {', '.join(_COMPARISONS)}, and a value")
        if words[1] == ">":
            float(words[2])
        return cls(*words)

    def holds(self, value: KnobValue | None) -> bool:
        """Tell whether it holds for the other knob's `value`; where that is not known, it may."""
        if value is None:
            return True
        if isinstance(value, int | float) and not isinstance(value, bool):
            return bool(_COMPARISONS[self.comparison](float(value), float(self.value)))
        spelled = ("off", "on")[value] if isinstance(value, bool) else value
        return bool(_COMPARISONS[self.comparison](spelled, self.value))


@dataclass(frozen=True, slots=True)
class Knob:
    """One thing that can be set, and how far it may be searched.

    Parameters
    ----------
    name : str
        The setting's name in ``pg_settings``; ``client.concurrency`` and the like for what is set on our side.
    kind : str
        ``integer``, ``real``, ``bool`` or ``enum``, as ``pg_settings.vartype`` says.
    unit : str or None
        The unit of `minimum`, `maximum` and every value: the base unit in ``pg_settings.unit`` (``kB``, ``8kB``,
        ``ms``, …).
    scope : Scope
        The cheapest scope in which a change takes effect for all sessions that it concerns.
    minimum, maximum : float or None
        The range that is worth searching, inside what the server allows.
    log_scale : bool
        Whether equal ratios, rather than equal differences, are equally interesting.
    special_values : tuple
        Values with a meaning of their own (``-1``: use another knob's; ``0``: off).
    choices : tuple of str
        The values of an enum that are worth searching.
    memory_rule : str or None
        The part that it plays in the prediction of peak memory (`knobs.memory`).
    since_version, until_version : int or None
        First and last major version that has it.
    is_advice_only : bool
        Whether it is never searched, not even where the server may be restarted: the application relies on it, or the
        server works it out from others.
    only_if : Condition or None
        Without which it has no effect on anything that a trial can see.
    acts_on : str or None
        One of `ACTIVITIES`, without which it has no effect either.
    is_searched : bool
        Whether a trial of minutes can see what it does; otherwise only the rules speak of it.
    summary, source : str
        What it does, in a sentence; where its range comes from.
    """

    name: str
    kind: str
    scope: Scope
    summary: str
    source: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    log_scale: bool = False
    special_values: tuple[KnobValue, ...] = ()
    choices: tuple[str, ...] = ()
    memory_rule: str | None = None
    since_version: int | None = None
    until_version: int | None = None
    is_advice_only: bool = False
    only_if: Condition | None = None
    acts_on: str | None = None
    is_searched: bool = True


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of ``pg_settings``: what the live server says of a knob.

    Parameters
    ----------
    value : bool, int, float or str
        The value in force in our session, in the base `unit`.
    context : str
        ``internal``, ``postmaster``, ``sighup``, ``superuser``, ``user``, …
    source : str
        ``default``, ``configuration file``, ``command line``, ``database``, ``user``, …
    written_value : str or None
        What ``postgresql.auto.conf`` says, as it stands there; None when it says nothing.
    """

    name: str
    value: KnobValue
    kind: str
    unit: str | None
    context: str
    source: str
    minimum: float | None = None
    maximum: float | None = None
    enumvals: tuple[str, ...] = ()
    boot_value: str | None = None
    pending_restart: bool = False
    written_value: str | None = None
