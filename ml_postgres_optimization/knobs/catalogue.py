"""The catalogue: what may be tuned and what may never be, read from TOML and confronted with a server."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.confrontation import (
    BOUNDING_SETTINGS,
    Unfit,
    bounds,
    confronted,
    narrowed,
    parsed_bounds,
)
from ml_postgres_optimization.knobs.knob import ACTIVITIES, Condition, Knob, KnobValue, Scope, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.memory import MEMORY_RULES, MEMORY_SETTINGS
from ml_postgres_optimization.knobs.rendering import parse

_OWN_CATALOGUE = Path(__file__).with_name("catalogue.toml")
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Names, and perhaps values, that are never set by us.

    Parameters
    ----------
    pattern : str
        A name or a shell pattern of names, in lower case.
    reason : str
        Completes "refused since …".
    values : tuple of str
        Where given, only these are forbidden.
    owner_may_allow : bool
        Whether the owner of the data may list the name to allow it.
    """

    pattern: str
    reason: str
    values: tuple[str, ...] = ()
    owner_may_allow: bool = False

    def forbids(self, name: str, value: KnobValue | None) -> bool:
        """Tell whether it holds for `name` (lower case) set to `value`; None stands for any value."""
        return fnmatchcase(name, self.pattern) and (not self.values or _spelled(value) in self.values)


def _spelled(value: KnobValue | None) -> str | None:
    """Return ``on`` or ``off`` for whatever PostgreSQL reads as such, and other values as they are."""
    if value is None:
        return None
    try:
        return "on" if parse(str(value), "bool") else "off"
    except ValueError:
        return str(value).lower()


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue(Mapping[str, Knob]):
    """The knobs that may be tuned, by name, and what is forbidden.

    Parameters
    ----------
    knobs : mapping of str to Knob
    forbidden : tuple of Forbidden
    left_out : mapping of str to str
        Knob of the file → why it is not among `knobs`.
    allowed_by_owner : frozenset of str
        Names that the owner of the data allowed, out of those that an owner may allow.
    may_restart : bool
        Whether the server may be restarted for a change.

    Examples
    --------
    >>> catalogue = load_catalogue()
    >>> catalogue["work_mem"].minimum, catalogue["work_mem"].unit
    (1024.0, 'kB')
    >>> catalogue.forbidden_reason("fsync")
    'a crash of the system can corrupt the whole cluster without it'
    """

    knobs: Mapping[str, Knob]
    forbidden: tuple[Forbidden, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    allowed_by_owner: frozenset[str] = frozenset()
    may_restart: bool = False

    def __getitem__(self, name: str) -> Knob:
        return self.knobs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.knobs)

    def __len__(self) -> int:
        return len(self.knobs)

    @property
    def online(self) -> Catalogue:
        """The knobs that take effect without a restart."""
        return replace(self, knobs={name: knob for name, knob in self.items() if knob.scope < Scope.RESTART})

    @property
    def tunable(self) -> Catalogue:
        """The knobs that we may change here: those online, and others only where the server may be restarted."""
        if not self.may_restart:
            return self.online
        return replace(self, knobs={name: knob for name, knob in self.items() if not knob.is_advice_only})

    @property
    def sessions_own(self) -> Catalogue:
        """The knobs that a session can set for itself, and whose effect stays with it."""
        return replace(self, knobs={name: knob for name, knob in self.items() if knob.scope is Scope.SESSION})

    @property
    def settings_needed(self) -> frozenset[str]:
        """The settings to read from a server before `confront`, a review, or the rules."""
        own = {name for name, knob in self.items() if knob.scope is not Scope.CLIENT}
        return MEMORY_SETTINGS | BOUNDING_SETTINGS | own

    def forbidden_reason(self, name: str, value: KnobValue | None = None) -> str | None:
        """Say why `name` may never be set by us, to `value` or (without one) to anything; None where it may."""
        lowered = name.lower()
        for rule in self.forbidden:
            if rule.forbids(lowered, value) and not (rule.owner_may_allow and lowered in self.allowed_by_owner):
                return rule.reason
        return None

    def without(self, reasons: Mapping[str, str]) -> Catalogue:
        """Return the catalogue without these knobs, each with the reason why."""
        kept = {name: knob for name, knob in self.items() if name not in reasons}
        return replace(self, knobs=kept, left_out={**self.left_out, **reasons})

    def capped(self, maxima: Mapping[str, float]) -> Catalogue:
        """Return the catalogue with these knobs at most so large; left out where nothing remains."""
        fit, unfit = {}, {}
        for name, knob in self.items():
            try:
                fit[name] = narrowed(knob, None, maxima.get(name))
            except Unfit as error:
                unfit[name] = str(error)
        return replace(self, knobs=fit, left_out={**self.left_out, **unfit})

    def confront(self, settings: Mapping[str, Setting], major: int, machine: Machine | None = None) -> Catalogue:
        """Return what of the catalogue can be tuned on this server, and how far.

        Parameters
        ----------
        settings : mapping of str to Setting
            The live settings, those in `settings_needed` at least.
        major : int
            Major version of the server.
        machine : Machine, optional
            Narrows ranges to its memory, processors and disk.
        """
        limits = bounds(settings, machine)
        fit, unfit = {}, {}
        for name, knob in self.items():
            try:
                fit[name] = narrowed(confronted(knob, settings.get(name), major), *limits.get(name, (None, None)))
            except Unfit as reason:
                unfit[name] = str(reason)
        remaining = replace(self, knobs=fit, left_out={**self.left_out, **unfit})
        return remaining.without(remaining._idle_for_good(settings))

    def _idle_for_good(self, settings: Mapping[str, Setting]) -> dict[str, str]:
        """Return the knobs without effect, since what they depend on is as it is, and cannot be changed online."""
        conditions = {name: knob.only_if for name, knob in self.items() if knob.only_if}
        return {
            name: f"it has no effect while {only_if.knob} is {_spelled(settings[only_if.knob].value)}"
            for name, only_if in conditions.items()
            if only_if.knob not in self.online
            and only_if.knob in settings
            and not only_if.holds(settings[only_if.knob].value)
        }

    def configuration_of(
        self, settings: Mapping[str, Setting], client: Mapping[str, KnobValue] | None = None
    ) -> Configuration:
        """Return what is in force of the knobs that we may change here, with the `client` ones given."""
        ours = {name: value for name, value in (client or {}).items() if name in self}
        live = {name: settings[name].value for name in self.tunable if name in settings}
        return Configuration({**live, **ours})


class _KnobEntry(BaseModel):
    """A [[knob]] of the file."""

    model_config = ConfigDict(extra="forbid")

    name: _Text
    kind: Literal["integer", "real", "bool", "enum"]
    scope: Literal["client", "session", "role", "database", "reload", "restart"]
    summary: _Text
    source: _Text
    unit: _Text | None = None
    range: tuple[str | float, str | float] | None = None
    scale: Literal["linear", "log"] = "linear"
    special: tuple[int | float | str, ...] = ()
    choices: tuple[_Text, ...] = ()
    memory_rule: str | None = None
    since: int | None = None
    until: int | None = None
    advice_only: bool = False
    only_if: _Text | None = None
    acts_on: str | None = None
    searched: bool = True

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """The range in the base unit."""
        if self.range is None:
            return None, None
        lowest, highest = parsed_bounds(self.range, self.kind, self.unit)
        return lowest, highest

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if (self.kind in {"integer", "real"}) != (self.range is not None):
            raise ValueError("a range belongs to an integer or a real, and only there")
        if (self.kind == "enum") != bool(self.choices):
            raise ValueError("choices belong to an enum, and only there")
        lowest, highest = self.limits
        if lowest is not None and highest is not None and not lowest < highest:
            raise ValueError("the range is not a lower and a higher value")
        if self.scale == "log" and not (lowest or 0) > 0:
            raise ValueError("only a range above 0 can be searched on a log scale")
        if self.memory_rule not in {None, *MEMORY_RULES}:
            raise ValueError(f"memory_rule may be {', '.join(sorted(MEMORY_RULES))}")
        if self.acts_on not in {None, *ACTIVITIES}:
            raise ValueError(f"acts_on may be {', '.join(sorted(ACTIVITIES))}")
        if self.only_if:
            Condition.parse(self.only_if)
        return self

    def knob(self) -> Knob:
        """Return what it describes."""
        lowest, highest = self.limits
        return Knob(
            name=self.name,
            kind=self.kind,
            scope=Scope[self.scope.upper()],
            summary=self.summary,
            source=self.source,
            unit=self.unit,
            minimum=lowest,
            maximum=highest,
            log_scale=self.scale == "log",
            special_values=self.special,
            choices=self.choices,
            memory_rule=self.memory_rule,
            since_version=self.since,
            until_version=self.until,
            is_advice_only=self.advice_only,
            only_if=Condition.parse(self.only_if) if self.only_if else None,
            acts_on=self.acts_on,
            is_searched=self.searched,
        )


class _ForbiddenEntry(BaseModel):
    """A [[forbidden]] of the file."""

    model_config = ConfigDict(extra="forbid")

    pattern: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, to_lower=True)]
    reason: _Text
    values: tuple[str, ...] = ()
    owner_may_allow: bool = False

    def forbidden(self) -> Forbidden:
        """Return what it describes."""
        return Forbidden(self.pattern, self.reason, self.values, self.owner_may_allow)


def load_catalogue(path: Path | None = None, *, allowed_by_owner: Iterable[str] = ()) -> Catalogue:
    """Read the catalogue; a knob that is forbidden, and not allowed by the owner, is left out.

    Parameters
    ----------
    path : Path, optional
        Another file than the one that comes with the package.
    allowed_by_owner : iterable of str
        Names that the owner of the data allows; only ``synchronous_commit`` can be.

    Raises
    ------
    UsageError
        If the file cannot be read or an entry in it is wrong, or if the owner cannot allow one of the names.
    """
    source = path or _OWN_CATALOGUE
    try:
        tables = tomllib.loads(source.read_text(encoding="utf-8"))
        knobs = [entry.knob() for entry in _entries(tables, "knob", _KnobEntry)]
        forbidden = tuple(entry.forbidden() for entry in _entries(tables, "forbidden", _ForbiddenEntry))
        _refuse_doubles(knobs)
        _refuse_conditions_on_nothing(knobs)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The catalogue {source} cannot be used: {error}.", "Correct the file, or do without it to take ours."
        ) from error
    allowed = frozenset(name.lower() for name in allowed_by_owner)
    _refuse_what_no_owner_may_allow(allowed, forbidden)
    return _without_forbidden(Catalogue({knob.name: knob for knob in knobs}, forbidden, {}, allowed))


_Entry = TypeVar("_Entry", bound=BaseModel)


def _entries(tables: Mapping[str, object], table: str, entry: type[_Entry]) -> list[_Entry]:
    """Read the tables of one name.

    Raises
    ------
    ValueError
        Naming the table's entry and what is wrong with it, in one line.
    """
    unknown = set(tables) - {"knob", "forbidden"}
    if unknown:
        raise ValueError(f"unknown table {', '.join(sorted(unknown))}; there are [[knob]] and [[forbidden]]")
    rows = tables.get(table, [])
    if not isinstance(rows, list):
        raise ValueError(f"{table} is written [[{table}]]")
    return [_validated(row, table, entry) for row in rows]


def _validated(row: object, table: str, entry: type[_Entry]) -> _Entry:
    try:
        return entry.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        name = (row.get("name") or row.get("pattern") if isinstance(row, dict) else None) or "without a name"
        where = " ".join(str(step) for step in (name, *first["loc"]))
        raise ValueError(f"[[{table}]] {where}: {first['msg']}") from error


def _refuse_doubles(knobs: list[Knob]) -> None:
    names = [knob.name for knob in knobs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"[[knob]] {name} stands there {names.count(name)} times")


def _refuse_conditions_on_nothing(knobs: list[Knob]) -> None:
    names = {knob.name for knob in knobs}
    for knob in knobs:
        if knob.only_if and knob.only_if.knob not in names:
            raise ValueError(f"[[knob]] {knob.name} only_if: there is no [[knob]] {knob.only_if.knob}")


def _refuse_what_no_owner_may_allow(allowed: frozenset[str], forbidden: tuple[Forbidden, ...]) -> None:
    allowable = {rule.pattern for rule in forbidden if rule.owner_may_allow}
    for name in sorted(allowed - allowable):
        raise UsageError(
            f"{name} cannot be allowed; the owner of the data may only allow: {', '.join(sorted(allowable)) or '-'}.",
            f"Take {name} off the list of allowed settings.",
        )


def _without_forbidden(catalogue: Catalogue) -> Catalogue:
    reasons = {name: catalogue.forbidden_reason(name) for name in catalogue}
    return catalogue.without({name: reason for name, reason in reasons.items() if reason})
