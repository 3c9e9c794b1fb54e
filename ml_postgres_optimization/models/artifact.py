"""Keep trained forests in files that can run no code when they are read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np

from ml_postgres_optimization import __version__
from ml_postgres_optimization.errors import ArtefactRefused, StateError
from ml_postgres_optimization.models.features import describe
from ml_postgres_optimization.models.forest import Forest
from ml_postgres_optimization.telemetry import Clock, SystemClock

FORMAT = 1
KEPT = 5
_HEADER, _SCHEMA = "header.json", "schema.json"
_LARGEST_BYTES = 256 * 2**20
_LIBRARIES = ("scikit-learn", "skops", "numpy")
_ARRAY_MEMBER = re.compile(r"[0-9]+\.npy")
_FILE_NAME = re.compile(r"(?P<kind>[a-z]+)-(?P<number>[0-9]{6,})-[0-9]{8}T[0-9]{6}Z\.skops")
# Everything that a file may ask skops to build: a dict of arrays of numbers, and nothing else. Read in the source of
# skops 0.16: of these loaders the first three build only the type that is named here (the second and third are for
# the dict's keys), and the last reads with allow_pickle=False. Protocols before 2 had other loaders.
_ALLOWED = frozenset(
    {
        ("DictNode", "builtins", "dict"),
        ("ListNode", "builtins", "list"),
        ("TypeNode", "builtins", "str"),
        ("NdArrayNode", "numpy", "ndarray"),
    }
)
_OLDEST_PROTOCOL = 2
_NODE_KEYS = ("__loader__", "__module__", "__class__")


class StoredModel(Protocol):
    """A model that is one forest and some facts."""

    kind: ClassVar[str]

    @property
    def forest(self) -> Forest:
        """The forest in it."""

    def facts(self) -> dict[str, Any]:
        """Return all but the forest, ready for JSON."""

    @classmethod
    def restore(cls, facts: Mapping[str, Any], forest: Forest) -> Self:
        """Rebuild what `facts` and `forest` gave."""


Model = TypeVar("Model", bound=StoredModel)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Model]):
    """A model that was read, and what had to be passed over.

    Parameters
    ----------
    model : Model
    path : Path
    refused : tuple of str
        Newer files that could not be used, each with the reason; newest first.
    """

    model: Model
    path: Path
    refused: tuple[str, ...] = ()


def save_model(model: StoredModel, directory: Path, *, clock: Clock | None = None) -> Path:
    """Store a model under the next number, and keep the last `KEPT` of its kind.

    The file appears whole or not at all, whatever happens meanwhile: written aside, synced, renamed. Its mode is
    0600. It is an ordinary skops file with one more member, ``header.json``.

    Raises
    ------
    StateError
        If the directory cannot be written.
    """
    created_at = (clock or SystemClock()).now()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max((number for number, _ in _stored(model.kind, directory)), default=0) + 1
        path = directory / f"{model.kind}-{number:06d}-{created_at:%Y%m%dT%H%M%SZ}.skops"
        _remove_partial(model.kind, directory)
        _write_whole(path, _packed(model, created_at.isoformat()))
        for _, old in _stored(model.kind, directory)[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _remove_partial(model.kind, directory)
        raise StateError(
            f"The {model.kind} model cannot be stored in {directory}: {error.strerror or error}.",
            "Free some space, or choose a folder that can be written with GENESIS_HOME.",
        ) from error
    return path


def load_model(model: type[Model], directory: Path) -> Loaded[Model] | None:
    """Read the last good model of a kind.

    Returns
    -------
    Loaded or None
        None where none was ever stored.

    Raises
    ------
    ArtefactRefused
        If there are files, and none of them can be used.

    Notes
    -----
    A file is refused when it is cut or altered, of another kind or format, made of features that this version does
    not know, or asks for any type but those of `_ALLOWED`. Another version of scikit-learn is no reason: what is
    stored are arrays whose meaning is ours.
    """
    refused: list[str] = []
    for _, path in _stored(model.kind, directory):
        try:
            return Loaded(read_model(model, path), path, tuple(refused))
        except ArtefactRefused as error:
            refused.append(error.what)
    if not refused:
        return None
    raise ArtefactRefused(
        f"None of the {len(refused)} stored {model.kind} models can be used. {refused[0]}",
        "Train a new one: genesis-pg train.",
    )


def read_model(model: type[Model], path: Path) -> Model:
    """Read one file.

    Raises
    ------
    ArtefactRefused
        If it cannot be used.
    """
    try:
        facts, forest = _unpacked(path, model.kind)
        return model.restore(facts, forest)
    except ArtefactRefused:
        raise
    except Exception as error:  # whatever goes wrong while reading a stranger's file is the file's fault
        raise _refusal(path, f"it is corrupt ({type(error).__name__}: {error})") from error


def _refusal(path: Path, reason: str) -> ArtefactRefused:
    return ArtefactRefused(
        f"The stored model {path.name} is refused: {reason}.".replace("\n", " "),
        "The last good one is used where there is one; else train a new one: genesis-pg train.",
    )


def _stored(kind: str, directory: Path) -> list[tuple[int, Path]]:
    """Return number and path of what is stored of a kind, newest first."""
    if not directory.is_dir():
        return []
    matches = ((_FILE_NAME.fullmatch(path.name), path) for path in directory.iterdir() if path.is_file())
    found = [(int(match["number"]), path) for match, path in matches if match and match["kind"] == kind]
    return sorted(found, reverse=True)


def _packed(model: StoredModel, created_at: str) -> bytes:
    import skops.io  # type: ignore[import-untyped]  # noqa: PLC0415  (as above)

    data = io.BytesIO(skops.io.dumps(model.forest.arrays(), compression=zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(data, "a", compression=zipfile.ZIP_DEFLATED) as archive:
        header = {
            "product": "ml_postgres_optimization",
            "format": FORMAT,
            "kind": model.kind,
            "version": __version__,
            "created_at": created_at,
            "libraries": {name: version(name) for name in _LIBRARIES},
            "feature_names": list(model.forest.names),
            "facts": model.facts(),
            "members_sha256": _members_digest(archive),
        }
        archive.writestr(_HEADER, json.dumps(header, indent=2))
    return data.getvalue()


def _unpacked(path: Path, kind: str) -> tuple[Mapping[str, Any], Forest]:
    if path.stat().st_size > _LARGEST_BYTES:
        raise _refusal(path, f"it is larger than {_LARGEST_BYTES} bytes")
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _check_members(path, archive)
        header = json.loads(archive.read(_HEADER))
        _check_header(path, header, kind)
        if header["members_sha256"] != _members_digest(archive):
            raise _refusal(path, "it was altered after it was written")
        _check_schema(path, json.loads(archive.read(_SCHEMA)))
        for name in _array_members(archive):
            _check_array(path, name, archive.read(name))
    import skops.io  # noqa: PLC0415  (seconds, and most starts load no model)

    arrays = skops.io.loads(data, trusted=[])
    return header["facts"], Forest.of_arrays(header["feature_names"], arrays)


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    strange = [name for name in names if name not in {_HEADER, _SCHEMA} and not _ARRAY_MEMBER.fullmatch(name)]
    if strange or len(set(names)) != len(names):
        raise _refusal(path, f"it holds what does not belong there: {(strange or names)[0]!r}")
    if sum(member.file_size for member in archive.infolist()) > _LARGEST_BYTES:
        raise _refusal(path, f"it would unpack to more than {_LARGEST_BYTES} bytes")


def _check_header(path: Path, header: Mapping[str, Any], kind: str) -> None:
    if header["product"] != "ml_postgres_optimization" or header["kind"] != kind:
        raise _refusal(path, f"it holds {header['kind']!r} of {header['product']!r}, and {kind!r} of ours is wanted")
    if header["format"] != FORMAT:
        raise _refusal(path, f"its format is {header['format']!r}, and this version reads {FORMAT}")
    unknown = [name for name in header["feature_names"] if describe(name) is None]
    if unknown:
        raise _refusal(path, f"it was trained on features that this version does not know: {unknown[0]!r}")


def _check_schema(path: Path, schema: Mapping[str, Any]) -> None:
    if schema["protocol"] < _OLDEST_PROTOCOL:
        raise _refusal(path, f"its skops protocol is {schema['protocol']}, older than {_OLDEST_PROTOCOL}")
    for node in _nodes(schema):
        wanted = tuple(node.get(key) for key in _NODE_KEYS)
        if wanted not in _ALLOWED or node.get("type", "numpy") != "numpy":
            raise _refusal(path, f"it asks for a type that is not allowed: {wanted[1]}.{wanted[2]} by {wanted[0]}")


def _nodes(schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping, at any depth, that skops could take for a node."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            if any(key in part for key in _NODE_KEYS):
                yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _check_array(path: Path, name: str, content: bytes) -> None:
    """Compare the size that an array claims with what is there, before memory is given to it."""
    stream = io.BytesIO(content)
    major, _ = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    claimed = dtype.itemsize * int(np.prod(shape, dtype=object))
    if dtype.hasobject or claimed != len(content) - stream.tell():
        raise _refusal(path, f"its array {name} is not as large as it says, or holds objects")


def _array_members(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if _ARRAY_MEMBER.fullmatch(name)]


def _members_digest(archive: zipfile.ZipFile) -> str:
    digest = hashlib.sha256()
    for name in sorted([_SCHEMA, *_array_members(archive)]):
        digest.update(name.encode() + b"\0" + hashlib.sha256(archive.read(name)).digest())
    return digest.hexdigest()


def _remove_partial(kind: str, directory: Path) -> None:
    """Remove what a crash left behind."""
    for partial in directory.glob(f".{kind}-*.partial"):
        partial.unlink(missing_ok=True)


def _write_whole(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
