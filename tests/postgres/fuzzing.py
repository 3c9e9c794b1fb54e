"""Start the program with input that nobody would type, and say what is wrong with how it ended."""

import io
import os
import random
import shutil
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import optuna
import psycopg
from command_line import NAMES_A_SERVER, ROOT
from fuzzed_input import SECRET, Case, catalogue_text, changed, drawn

from ml_postgres_optimization.errors import ArtefactRefused, GenesisError, StateError, UsageError
from ml_postgres_optimization.interfaces.cli import app, classic
from ml_postgres_optimization.interfaces.cli.invocation import invoke
from ml_postgres_optimization.knobs import catalogue
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.artifact import read_model, save_model
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.training import ForestSettings
from ml_postgres_optimization.target.postgres.schema import install_schema
from ml_postgres_optimization.tuning import ForestSampler, SearchSpace, TuningStudy

sys.path.insert(0, str(ROOT / "tests" / "unit"))

from synthetic_windows import history  # its folder is no package

OWN_CATALOGUE = Path(catalogue.__file__).with_name("catalogue.toml")
# Leads nowhere, and so never to an embedded server either.
NOWHERE = {"PGHOST": "/nowhere", "PGPORT": "1", "PGCONNECT_TIMEOUT": "2"}
ERRORS = {"catalogue": UsageError, "artefact": ArtefactRefused, "study": StateError}


class Sandbox:
    """A folder in which every case begins afresh.

    Parameters
    ----------
    folder : Path
    dsn : str
        A server that is there, with schema genesis in it.
    server_folder : str
        Where, in the state folder, what belongs to that server is kept.
    """

    def __init__(self, folder: Path, dsn: str, server_folder: str) -> None:
        self.folder = folder
        self.dsn = dsn
        self.server_folder = server_folder

    @classmethod
    def at(cls, folder: Path, dsn: str) -> "Sandbox":
        """Return a sandbox for a server, in which schema genesis is made."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            install_schema(connection)
            (identifier,) = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
        return cls(folder, dsn, f"home/servers/{identifier}")

    def complaint(self, kind: str, number: int) -> str | None:
        """Play the case of this kind and number; return what is wrong with how it ended, None where nothing is."""
        return self.complaint_about(drawn(kind, number))

    def complaint_about(self, case: Case) -> str | None:
        """Play a case."""
        with self._prepared(case):
            words = [*case.words, *(("--dsn", self.dsn) if case.on_server else ())]
            code, out, err = started(words, by_modes=case.by_modes)
            return wrong_with(case, code, out, err) or self._wrong_on_disk()

    @contextmanager
    def _prepared(self, case: Case):
        """Make the folder afresh, with the files and the environment of the case, and work in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, content in case.files.items():
            inside = self.folder if name.startswith("workload/") else self.folder / self.server_folder
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            (inside / name).write_bytes(content)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NAMES_A_SERVER)}
        with environment({**kept, **NOWHERE, "GENESIS_HOME": str(self.folder / "home"), **case.environ}):
            before = Path.cwd()
            os.chdir(self.folder)
            try:
                yield
            finally:
                os.chdir(before)

    def _wrong_on_disk(self) -> str | None:
        for path in self.folder.rglob("*"):
            if path.is_file() and SECRET.encode() in path.read_bytes():
                return f"the password stands in {path.relative_to(self.folder)}"
        return None


@contextmanager
def environment(wanted: dict[str, str]):
    """Have exactly these variables for a while."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def started(words: list[str], *, by_modes: bool = False) -> tuple[object, str, str]:
    """Start the program in this process; return its exit code, or what it raised, and what it wrote."""
    optuna.logging.disable_default_handler()
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace") for _ in range(2)]
    which, root, program = (classic.app, ROOT, "run.py") if by_modes else (app.app, None, "genesis-pg")
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            code: object = invoke(which, words, project_root=root, program=program)
        except BaseException as error:  # whatever gets here would be a traceback
            code = f"{type(error).__name__}: {error}"
        for stream in streams:
            stream.flush()
    return code, *(stream.buffer.getvalue().decode() for stream in streams)


def wrong_with(case: Case, code: object, out: str, err: str) -> str | None:
    """Say what is wrong with how a case ended; None where nothing is."""
    if "--debug" not in case.words:
        if "Traceback" in err + out:
            return f"a traceback: {err[-300:]}"
        # what doctor finds wrong is its result
        says_why = code in (0, 1) or "doctor" in case.words[:1]
        if len(err.splitlines()) > 2 or (len(err.splitlines()) != 2 and not says_why):
            return f"not two lines: {err[:500]!r}"
    if "defect of ours" in err + out:
        return f"a defect: {err[:500]}"
    if code not in case.codes:
        return f"exit code {code}: {err[:300]}"
    if SECRET in err + out:
        return f"the password is told: {(err + out)[:300]}"
    if any(ord(letter) < 32 and letter not in "\n" for letter in err + out):
        return f"it plays with the terminal: {(err + out)[:300]!r}"
    return None


def complaint_about_file(kind: str, number: int, folder: Path, whole: Path) -> str | None:
    """Read a catalogue, an artefact or a study that was changed; return what is wrong with how that ended.

    Parameters
    ----------
    kind : str
        One of `ERRORS`.
    number : int
    folder : Path
        Where the changed one is put.
    whole : Path
        A whole one.
    """
    rng = random.Random(f"{kind} {number}")
    path = folder / whole.name
    path.write_bytes(catalogue_text(rng, whole) if kind == "catalogue" else changed(rng, whole.read_bytes()))
    try:
        READERS[kind](path)
    except GenesisError as error:
        if not isinstance(error, ERRORS[kind]) or len(str(error).splitlines()) != 2:
            return f"{type(error).__name__}: {str(error)[:300]!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]!r}"
    return None


def open_study(folder: Path) -> TuningStudy:
    """Open the study in a folder, as every campaign does first."""
    optuna.logging.disable_default_handler()
    space = SearchSpace.of(load_catalogue(), names=STOCK)
    sampler = ForestSampler(seed=1, choice_weights=space.choice_weights, idle=space.idle)
    return TuningStudy.open(folder, workload="w", space=space, initial=STOCK, sampler=sampler)


def whole_files(folder: Path) -> dict[str, Path]:
    """Make what `complaint_about_file` changes: a whole one of each kind."""
    past = history(100, 1, log_mean=lambda number, rng: -6.0 + 0.2 * rng.normal())
    study = open_study(folder / "study")
    for _ in range(3):
        study.enqueue([Configuration({**STOCK, "work_mem": 8192})], reason="because")
        study.study.tell(study.study.ask(), 0.1)
    return {
        "catalogue": OWN_CATALOGUE,
        "artefact": save_model(LatencyForest.fit(past, 1, ForestSettings(trees=5)), folder),
        "study": folder / "study" / "study.journal",
    }


STOCK = Configuration({"work_mem": 4096, "jit": True, "wal_compression": "off"})
READERS = {
    "catalogue": load_catalogue,
    "artefact": lambda path: read_model(LatencyForest, path),
    "study": lambda path: open_study(path.parent),
}
