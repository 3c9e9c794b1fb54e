"""The blocks that were measured, on disk one by one, so that an interrupted comparison goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_postgres_optimization.comparison.measuring.figures import BlockFigures
from ml_postgres_optimization.comparison.plan import Cell
from ml_postgres_optimization.comparison.terms import Terms
from ml_postgres_optimization.errors import StateError

_FORMAT = 1
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError)
Key = tuple[int, str, str]


class Ledger:
    """A file of JSON lines: what is compared, its terms, and each block; opened by one process.

    Parameters
    ----------
    path : Path
    request : mapping
        What was asked for, JSON-ready: a file of another request is put aside under a name of its own, not lost.

    Attributes
    ----------
    set_aside : Path or None
        Where a file of another request is now.

    Raises
    ------
    StateError
        If the file cannot be read or written, or holds something else than a ledger.

    Notes
    -----
    A line that a kill cut off is dropped. A cell of which not all arms were measured is measured anew, since what is
    compared must lie near each other in time; its lines stay in the file, and the later one counts.
    """

    def __init__(self, path: Path, request: Mapping[str, object]) -> None:
        self._path = path
        self._request = json.loads(json.dumps(request))
        self.set_aside: Path | None = None
        self.terms: Terms | None = None
        self.blocks: dict[Key, BlockFigures] = {}
        try:
            self._load()
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error
        except _MALFORMED as error:
            raise _unusable(path, f"it is no ledger of ours ({type(error).__name__}: {error})") from error

    @staticmethod
    def is_of(path: Path, request: Mapping[str, object]) -> bool:
        """Tell whether a file holds a comparison of this request; not where it cannot be read."""
        try:
            with path.open(encoding="utf-8") as file:
                return bool(json.loads(file.readline())["request"] == json.loads(json.dumps(request)))
        except (OSError, *_MALFORMED):
            return False

    def has(self, cell: Cell) -> bool:
        """Tell whether all arms of a cell were measured."""
        return all((cell.round, cell.level.name, arm.name) in self.blocks for arm in cell.arms)

    def agree(self, terms: Terms) -> None:
        """Keep what holds for all blocks."""
        self.terms = terms
        self._append({"terms": terms.to_json()})

    def add(self, key: Key, figures: BlockFigures) -> None:
        """Keep one block: round, level and arm, and what it came to."""
        self.blocks[key] = figures
        self._append({"block": list(key), "figures": figures.to_json()})

    def close_as(self, path: Path) -> None:
        """Move the file of a comparison that is complete, so that the next one begins anew.

        Raises
        ------
        StateError
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._path.read_bytes())
            self._path.unlink()
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error

    def _load(self) -> None:
        lines = _whole_lines(self._path)
        if lines and lines[0].get("format") != _FORMAT:
            raise ValueError("another format")
        if lines and lines[0]["request"] != self._request:
            self.set_aside = self._path.with_name(f"{self._path.stem}-{self._path.stat().st_mtime_ns}.jsonl")
            self._path.rename(self.set_aside)
            lines = []
        if not lines:
            self._path.write_bytes(b"")
            self._append({"format": _FORMAT, "request": self._request})
        for line in lines[1:]:
            if "terms" in line:
                self.terms = Terms.from_json(line["terms"])
            else:
                number, level, arm = line["block"]
                self.blocks[int(number), str(level), str(arm)] = BlockFigures.from_json(line["figures"])

    def _append(self, line: Mapping[str, object]) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(self._path, error.strerror or str(error)) from error


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Read the file up to its last whole line, and cut off what stands behind; nothing where there is no file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line, parse_constant=_refuse_constant) for line in whole.splitlines()]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _unusable(path: Path, why: str) -> StateError:
    return StateError(
        f"The ledger of the benchmark, {path}, cannot be used: {why}.",
        "Make room or permit writing there, or move it away: what it holds is measured anew then.",
    )
