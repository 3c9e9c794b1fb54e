"""A real PostgreSQL for tests: one embedded server per process, a fresh database per test.

``GENESIS_TEST_PG_BIN`` names the folder of the programs to test against; without it the newest installed are taken.
"""

import itertools
import operator
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.target.embedded import Binaries, EmbeddedServer, all_binaries, find_binaries

# how long an example takes says more of the machine than of us
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

DISK, MEMORY = Path("/tmp"), Path("/dev/shm")
BINARIES = pytest.StashKey[Binaries]()

# Tests may lose their data; a server of a user's never runs with these.
WITHOUT_DURABILITY = {"fsync": "off", "full_page_writes": "off"}


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # shells have background jobs ignore it, and tests of ours interrupt what they start
        signal.signal(signal.SIGINT, signal.default_int_handler)
    named = os.environ.get("GENESIS_TEST_PG_BIN")
    try:
        config.stash[BINARIES] = find_binaries(Path(named) if named else None)
    except GenesisError as error:
        raise pytest.UsageError(str(error)) from error


def watchdogs_of_this_process() -> list[psutil.Process]:
    """Return the watchdogs of this process: they go on for a day where a test leaves them with a dead server."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any("safety.protection.post" in word for word in child.cmdline()):
                found.append(child)
    return found


def pytest_sessionfinish() -> None:
    for watchdog in watchdogs_of_this_process():
        watchdog.kill()


@pytest.fixture
def kill_the_watchdogs() -> Callable[[], int]:
    """Kill whoever stands by for a run in this process; return how many there were."""

    def kill() -> int:
        found = watchdogs_of_this_process()
        for watchdog in found:
            watchdog.kill()
        psutil.wait_procs(found, timeout=10)
        return len(found)

    return kill


def pytest_report_header(config: pytest.Config) -> str:
    binaries = config.stash[BINARIES]
    return f"PostgreSQL {binaries.version} from {binaries.bin_directory} ({binaries.origin})"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    major = config.stash[BINARIES].major
    for item in items:
        for marker in item.iter_markers("pg"):
            if not satisfies(major, marker.args[0]):
                item.add_marker(pytest.mark.skip(reason=f"needs PostgreSQL {marker.args[0]}, here is {major}"))


def satisfies(major: int, versions: str) -> bool:
    """Evaluate ``>= 15``, ``< 17`` or ``>= 15, < 18``."""
    conditions = [re.fullmatch(r"\s*(>=|<=|==|!=|<|>)\s*(\d+)\s*", part) for part in versions.split(",")]
    if not all(conditions):
        raise pytest.UsageError(f"the marker pg({versions!r}) is not understood; write '>= 15' or '>= 15, < 18'")
    operators = {
        ">=": operator.ge,
        "<=": operator.le,
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        ">": operator.gt,
    }
    return all(operators[condition[1]](major, int(condition[2])) for condition in conditions if condition)


@pytest.fixture(scope="session")
def binaries(pytestconfig: pytest.Config) -> Binaries:
    """The programs under test."""
    return pytestconfig.stash[BINARIES]


@pytest.fixture(scope="session")
def psql(binaries: Binaries) -> Path:
    """The program psql: of the installation under test, or where that has none (npm's packages) of another one."""
    installations = [binaries, *all_binaries()]
    return next(path for path in (each.program("psql") for each in installations) if path.exists())


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """A folder of this process's that the server's account can enter, which pytest's own are not for root."""
    with folder_in(DISK) as path:
        yield path


@pytest.fixture(scope="session")
def fast_folder() -> Iterator[Path]:
    """The same in memory where there is room, since an initdb takes a third of the time there."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 << 30
    with folder_in(MEMORY if roomy and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC else DISK) as path:
        yield path


@pytest.fixture
def folder(fast_folder: Path) -> Iterator[Path]:
    """A folder of the test's own that the server's account can enter."""
    with folder_of_its_own(fast_folder) as path:
        yield path


@pytest.fixture(scope="module")
def module_folder(fast_folder: Path) -> Iterator[Path]:
    """The same for the tests of a module; anew whenever a worker comes back to the module after another one."""
    with folder_of_its_own(fast_folder) as path:
        yield path


@contextmanager
def folder_of_its_own(parent: Path) -> Iterator[Path]:
    path = parent / uuid4().hex[:12]
    path.mkdir()
    yield path
    shutil.rmtree(path)


@contextmanager
def folder_in(parent: Path) -> Iterator[Path]:
    sweep_what_killed_runs_left(parent)
    path = Path(tempfile.mkdtemp(prefix=f"genesis-test-{os.getpid()}-", dir=parent))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def sweep_what_killed_runs_left(parent: Path) -> None:
    """Stop and remove the servers of runs whose process is gone; nobody else does."""
    for left in parent.glob("genesis-test-*-*"):
        with suppress(GenesisError, FileNotFoundError):  # another process may be sweeping it too
            if left.stat().st_uid == os.geteuid() and not psutil.pid_exists(int(left.name.split("-")[2])):
                for lock in itertools.chain(left.glob("*/lock"), left.glob("*/*/lock")):
                    EmbeddedServer.remove(lock.parent, system_state=left / "system")
                shutil.rmtree(left)


def start_server(home: Path, binaries: Binaries, session_folder: Path) -> EmbeddedServer:
    preloaded = (
        {"shared_preload_libraries": "pg_stat_statements"} if binaries.has_library("pg_stat_statements") else {}
    )
    settings = {**WITHOUT_DURABILITY, **preloaded}
    return EmbeddedServer.start(home, binaries=binaries, settings=settings, system_state=session_folder / "system")


@pytest.fixture(scope="session")
def server(binaries: Binaries, session_folder: Path) -> Iterator[EmbeddedServer]:
    """The server that all tests of this process share; break or tune `own_server` instead."""
    with start_server(session_folder / "server", binaries, session_folder) as server:
        yield server


@pytest.fixture
def own_server(binaries: Binaries, folder: Path, session_folder: Path) -> Iterator[EmbeddedServer]:
    """A server of the test's own, to break, stop or tune."""
    with start_server(folder, binaries, session_folder) as server:
        yield server


@pytest.fixture
def database(server: EmbeddedServer) -> Iterator[str]:
    """The DSN of a superuser on a fresh database."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_conninfo(server.dsn, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def owner(server: EmbeddedServer, database: str) -> Iterator[str]:
    """The DSN of a role that owns that same fresh database and is no superuser."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    role, identifiers = f"owner_of_{name}", (sql.Identifier(name), sql.Identifier(f"owner_of_{name}"))
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifiers[1]))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(*identifiers))
        yield make_conninfo(database, user=role)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifiers[0]))
        connection.execute(sql.SQL("DROP ROLE {}").format(identifiers[1]))
