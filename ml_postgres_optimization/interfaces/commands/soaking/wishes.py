"""What a test shall offer: said in a file, by flags, or by both; a flag counts before the file."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.settings import LONGEST_HOURS
from ml_postgres_optimization.workload import LEVELS, SOAK_MIX, OperationKind, OperationMix, RateShape
from ml_postgres_optimization.workload.faults import NO_FAULTS, PRESETS, FaultList
from ml_postgres_optimization.workload.plan import MAXIMUM_RATE_PER_SECOND
from ml_postgres_optimization.workload.shapes import SHAPES, Stages, shape_named

CONSTANT = "constant"
BY_LEVELS = "levels"
_MOST_LEVELS = 1_000
# More than any weight that somebody means.
_LARGEST_WEIGHT = 1e9
_NEXT_STEP = "docs/soak.md lists the keys."
# Keys that are settings, by the setting's name.
_SETTINGS: Mapping[str, str] = {"hours": "duration_hours", "level": "level", "scale": "scale", "seed": "seed"}
_KEYS = (*_SETTINGS, "rate", "shape", "levels", "mix", "faults", "optimize")
_KIND_OF: Mapping[str, OperationKind] = {name: kind for kind in OperationKind for name in (f"{kind}s", kind.value)}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a test shall offer.

    Parameters
    ----------
    mix : OperationMix
    rate_per_second : float or None
        Instead of the level's share of what the server can do.
    shape : str
        How the rate varies: a name, or a CSV file.
    levels : tuple of (str, float)
        Levels and their hours, one after the other, where `shape` is ``levels``; each of the four for a quarter of
        the run where there are none.
    faults : FaultList
    optimizes : bool
        Whether the optimiser works on the server meanwhile.
    settings : mapping of str to object
        What the file says of the run's settings; a flag counts before them.
    """

    mix: OperationMix = SOAK_MIX
    rate_per_second: float | None = None
    shape: str = CONSTANT
    levels: tuple[tuple[str, float], ...] = ()
    faults: FaultList = NO_FAULTS
    optimizes: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)

    def rate_shape(self, duration_seconds: float, *, level: str, seed: int) -> RateShape:
        """Return the factors on the rate that `level` offers.

        Raises
        ------
        UsageError
            If there is no such shape.
        """
        if self.shape != BY_LEVELS:
            return shape_named(self.shape, duration_seconds=duration_seconds, seed=seed)
        stretches = [(name, hours * 3600.0) for name, hours in self.levels]
        stretches = stretches or [(name, duration_seconds / len(LEVELS)) for name in LEVELS]
        whole = LEVELS[level].capacity_ratio
        return Stages(tuple((seconds, LEVELS[name].capacity_ratio / whole) for name, seconds in stretches))


NOTHING_SAID = Wish()


def wished(
    path: Path | None = None,
    *,
    mix: str | None = None,
    shape: str | None = None,
    faults: str | None = None,
    level: str | None = None,
    optimizes: bool = False,
) -> Wish:
    """Return what a file and flags wish for.

    Parameters
    ----------
    path : Path, optional
        A TOML file of `_KEYS`.
    mix : str, optional
        ``reads=45,writes=30,updates=15``.
    shape : str, optional
    faults : str, optional
        A preset, or a TOML file of ``[[faults]]``.
    level : str, optional
        Instead of the level, the rate or the levels of the file.
    optimizes : bool
        Whether the optimiser works beside it, though the file does not say so.

    Raises
    ------
    UsageError
        If a file cannot be read, or something is not understood; the message names the key.
    """
    wish = _of_file(path) if path else NOTHING_SAID
    if level is not None:
        wish = _at_level(wish, level)
        if shape == BY_LEVELS:
            raise UsageError(f"--level {level:.60} and --shape levels are given together.", "Keep one of them.")
    if mix is not None:
        wish = replace(wish, mix=_mix("--mix", _weights(mix)))
    if shape is not None:
        wish = replace(wish, shape=shape, levels=wish.levels if shape == BY_LEVELS else ())
    if faults is not None:
        wish = replace(wish, faults=PRESETS.get(faults) or _faults_of_file(Path(faults)))
    return _consistent(replace(wish, optimizes=wish.optimizes or optimizes))


def _at_level(wish: Wish, level: str) -> Wish:
    kept = CONSTANT if wish.shape == BY_LEVELS else wish.shape
    return replace(wish, rate_per_second=None, shape=kept, levels=(), settings={**wish.settings, "level": level})


def _consistent(wish: Wish) -> Wish:
    """Refuse what contradicts itself, and let levels be measured against the highest of them."""
    if wish.shape != BY_LEVELS:
        if wish.rate_per_second is not None and "level" in wish.settings:
            raise UsageError("The file has both level and rate.", "Keep one of them.")
        shape_named(wish.shape, duration_seconds=3600.0, seed=0)
        return wish
    if wish.rate_per_second is not None or "level" in wish.settings:
        raise UsageError("Levels are listed, and a level or a rate is given beside them.", "Keep one of them.")
    names = [name for name, _ in wish.levels] or list(LEVELS)
    highest = max(names, key=lambda name: LEVELS[name].capacity_ratio)
    return replace(wish, settings={**wish.settings, "level": highest})


def _of_file(path: Path) -> Wish:
    stated = _toml(path)
    _refuse_unknown(str(path), stated, _KEYS)
    changes: dict[str, Any] = {"settings": {_SETTINGS[key]: stated[key] for key in _SETTINGS if key in stated}}
    if "shape" in stated and "levels" in stated:
        raise UsageError(f"{path} has both shape and levels.", "Keep one of them.")
    readers: Mapping[str, tuple[str, Callable[[str, Any], object]]] = {
        "mix": ("mix", _mix),
        "rate": ("rate_per_second", _rate),
        "shape": ("shape", _word),
        "levels": ("levels", _levels),
        "faults": ("faults", _faults),
        "optimize": ("optimizes", _yes_or_no),
    }
    for key, (name, read) in readers.items():
        if key in stated:
            changes[name] = read(f"{path}, {key}", stated[key])
    if "levels" in stated:
        changes["shape"] = BY_LEVELS
    return Wish(**changes)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise UsageError(f"The file {path} cannot be read: {reason}.", "Name another one.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}.", "Correct that line.") from error


def _weights(text: str) -> dict[str, object]:
    weights: dict[str, object] = {}
    for part in text.split(","):
        name, sign, number = (word.strip() for word in part.partition("="))
        if not sign or name in weights:
            raise UsageError(
                f"--mix has {part.strip()!r:.60}" + (", a second time." if sign else "."),
                "Write each kind once: reads=45,writes=30,updates=15,transactions=5,deletes=5.",
            )
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = number
    return weights


def _mix(source: str, stated: object) -> OperationMix:
    if not isinstance(stated, Mapping) or not stated:
        raise UsageError(f"{source} is {stated!r:.60}.", "Name kinds and their weights: reads = 45, for one.")
    _refuse_unknown(source, stated, _KIND_OF)
    weights: dict[OperationKind, float] = {}
    for name, weight in stated.items():
        if not 0 < _number(weight) <= _LARGEST_WEIGHT:
            raise UsageError(
                f"{source}: the weight of {name} is {weight!r:.60}.",
                "Weights are numbers above 0; leave a kind out that shall not come.",
            )
        if _KIND_OF[name] in weights:
            raise UsageError(f"{source} has {name} a second time.", "Write each kind once.")
        weights[_KIND_OF[name]] = float(weight)
    return OperationMix(weights)


def _rate(source: str, stated: object) -> float:
    rate = _number(stated)
    if not 0 < rate <= MAXIMUM_RATE_PER_SECOND:
        raise UsageError(
            f"{source} is {stated!r:.60}.",
            f"Say operations per second, above 0 and up to {MAXIMUM_RATE_PER_SECOND:,.0f}.",
        )
    return rate


def _word(source: str, stated: object) -> str:
    if not isinstance(stated, str):
        raise UsageError(
            f"{source} is {stated!r:.60}.", f"Choose of {', '.join((*SHAPES, BY_LEVELS))}, or a CSV file."
        )
    return stated


def _yes_or_no(source: str, stated: object) -> bool:
    if not isinstance(stated, bool):
        raise UsageError(f"{source} is {stated!r:.60}.", "Write true or false.")
    return stated


def _levels(source: str, stated: object) -> tuple[tuple[str, float], ...]:
    if not isinstance(stated, list) or not 1 <= len(stated) <= _MOST_LEVELS:
        raise UsageError(f"{source} is {stated!r:.60}.", f"List from 1 to {_MOST_LEVELS:,}: {{level, hours}}.")
    return tuple(_level(f"{source} {place}", one) for place, one in enumerate(stated, 1))


def _level(source: str, stated: object) -> tuple[str, float]:
    if not isinstance(stated, Mapping):
        raise UsageError(f"{source} is {stated!r:.60}.", 'Write { level = "HIGH", hours = 8 }.')
    _refuse_unknown(source, stated, ("level", "hours"))
    name, hours = stated.get("level"), stated.get("hours")
    if not isinstance(name, str) or name not in LEVELS:
        raise UsageError(f"{source}: level is {name!r:.60}.", f"Choose of {', '.join(LEVELS)}.")
    if not 0 < _number(hours) <= LONGEST_HOURS:
        raise UsageError(f"{source}: hours is {hours!r:.60}.", f"Say hours, above 0 and up to {LONGEST_HOURS:g}.")
    return name, _number(hours)


def _faults(source: str, stated: object) -> FaultList:
    if isinstance(stated, list):
        return FaultList(tuple(stated))
    if not isinstance(stated, str) or stated not in PRESETS:
        raise UsageError(f"{source} is {stated!r:.60}.", f"Choose of {', '.join(PRESETS)}, or write [[faults]].")
    return PRESETS[stated]


def _faults_of_file(path: Path) -> FaultList:
    if not path.is_file():
        raise UsageError(
            f"The faults {str(path)!r:.200} are neither known nor a file.",
            f"Choose of {', '.join(PRESETS)}, or a TOML file of [[faults]].",
        )
    stated = _toml(path)
    _refuse_unknown(str(path), stated, ("faults",))
    return _faults(f"{path}, faults", stated.get("faults"))


def _number(value: object) -> float:
    """Return a number, and what is none as one that fits no limit."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def _refuse_unknown(source: str, stated: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for key in stated:
        if key not in names:
            close = difflib.get_close_matches(key, names, 1)
            hint = f"Did you mean {close[0]}?" if close else f"Choose of {', '.join(names)}."
            raise UsageError(f"{source}: {key!r:.60} is not known.", f"{hint} {_NEXT_STEP}")
