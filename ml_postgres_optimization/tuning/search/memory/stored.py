"""Where studies are kept, and which of them can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import optuna
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study

from ml_postgres_optimization.errors import StateError

Where = Path | str | BaseStorage | None
"""A folder, the URL of a database, a storage of Optuna's, or None for memory."""

FORMAT = "format"
# 1, without the attribute: before studies said which load they are of.
FORMAT_OF_OURS = 2
RANGES = "ranges"

_FILE = "study.journal"
# While one is in use, what else is raised is a defect of ours.
_LOST = (OSError, OptunaError)
# What is written in a file that somebody else has made, Optuna asserts.
_UNUSABLE = (*_LOST, ValueError, KeyError, TypeError, AssertionError, ImportError)
_ELSEWHERE = "Choose another GENESIS_HOME or storage, or mend this one; nothing in it was changed."
_AGAIN = "Mend it and start again: what is proven stays, and what is on trial is put back."


def open_storage(where: Where) -> BaseStorage:
    """Open what `where` says; a folder is made if it is not there."""
    if where is None:
        return InMemoryStorage()
    if isinstance(where, BaseStorage):
        return where
    if isinstance(where, str):
        return RDBStorage(where)
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    (where / _FILE).touch(mode=0o600)
    return JournalStorage(JournalFileBackend(str(where / _FILE)))


def require_storage(where: Where) -> None:
    """Open what `where` says once, so that it is known before any work whether it can be used.

    Raises
    ------
    StateError
        If not.
    """
    with storage_errors(where):
        open_storage(where)


@contextmanager
def storage_errors(where: Where, *, is_in_use: bool = False) -> Iterator[None]:
    """Say which storage could not be used, or was lost while it was in use, and what to do about it.

    Raises
    ------
    StateError
        Instead of whatever the storage raised.
    """
    try:
        yield
    except Exception as error:
        # SQLAlchemy is no dependency of ours: its errors are known by where they come from
        is_sql = type(error).__module__.split(".")[0] == "sqlalchemy"
        if not is_sql and not isinstance(error, _LOST if is_in_use else _UNUSABLE):
            raise
        what = f"The studies in {_named(where)} cannot be used: {_first_line(error)}"
        raise StateError(what, _AGAIN if is_in_use else _ELSEWHERE) from error


class _Kept(Protocol):
    where: Where


_Study = TypeVar("_Study", bound=_Kept)
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def using_storage(
    method: Callable[Concatenate[_Study, _Given], _Result],
) -> Callable[Concatenate[_Study, _Given], _Result]:
    """Let a method of a study raise `StateError` where its storage is lost."""

    @wraps(method)
    def told(self: _Study, /, *given: _Given.args, **named: _Given.kwargs) -> _Result:
        with storage_errors(self.where, is_in_use=True):
            return method(self, *given, **named)

    return told


def require_readable(study: Study) -> None:
    """Refuse a study that something else than this version, or one before it, has made.

    Raises
    ------
    StateError
        Nothing was changed.
    """
    attributes = study.user_attrs
    written = attributes.get(FORMAT, 1)
    if not isinstance(written, int) or written > FORMAT_OF_OURS:
        raise StateError(
            f"The study {study.study_name} is of format {written}; this version reads up to {FORMAT_OF_OURS}.",
            "Install the version that made it, or a later one, or choose another GENESIS_HOME to begin anew.",
        )
    if RANGES not in attributes and study.get_trials(deepcopy=False):
        raise StateError(
            f"The study {study.study_name} was not made by this program: it does not say which ranges were searched.",
            "Give it another name, or choose another GENESIS_HOME or storage.",
        )


def studies_of(storage: BaseStorage, sampler: BaseSampler, *, prefix: str = "") -> list[Study]:
    """Load the studies whose names begin with `prefix`."""
    names = sorted(name for name in optuna.get_all_study_names(storage) if name.startswith(prefix))
    return [optuna.load_study(storage=storage, study_name=name, sampler=sampler) for name in names]


def readable_studies(places: Iterable[Where], sampler: BaseSampler) -> tuple[list[Study], list[str]]:
    """Load what can be read in other places; and say what cannot, since that need not stop anybody."""
    found, unreadable = [], []
    for place in places:
        if isinstance(place, Path) and not (place / _FILE).exists():
            continue
        try:
            with storage_errors(place):
                studies = studies_of(open_storage(place), sampler)
        except StateError as error:
            unreadable.append(error.what)
            continue
        for study in studies:
            try:
                require_readable(study)
            except StateError as error:
                unreadable.append(error.what)
            else:
                found.append(study)
    return found, unreadable


def _named(where: Where) -> str:
    if isinstance(where, Path):
        return str(where)
    # a URL may have a password in it
    return "the database that was named" if isinstance(where, str) else "the storage that was given"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
