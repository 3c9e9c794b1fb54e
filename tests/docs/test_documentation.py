"""What the documentation says is what the program does: help, examples, links, and the same in both languages."""

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psycopg
import pytest
from write_help import BEGIN, END, ROOT, pages, with_help

from ml_postgres_optimization.interfaces.cli import app, classic
from ml_postgres_optimization.interfaces.cli.invocation import invoke
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.safety.consent import Approvals
from ml_postgres_optimization.telemetry import SystemClock
from ml_postgres_optimization.telemetry.export import COLUMN_FAMILIES, COLUMNS

# a command keeps its log open until its process ends; here many share one
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAMS = {"genesis-pg", "python"}
MAY_MISS_A_CRITERION = {"train", "test", "tune"}
# they take longer than all others together, and are run in earnest elsewhere
ONLY_REHEARSED = {"run.py", "benchmark"}
SHORT_HOURS = {"simulate": "0.0055", "optimize": "0.003", "test": "0.003", "tune": "0.004"}
HAVE_TABLES = {"simulate", "optimize", "tune", "test", "benchmark", "run.py"}
NEED_A_PROPOSAL = {"approve", "decline"}
# pgbench's tables begin at 1
SCALES = {"tune": "1"}
# in the order of a user's first day: each stands on what those before it have made
ORDER = (
    "doctor",
    "setup",
    "simulate",
    "train",
    "optimize",
    "tune",
    "test",
    "benchmark",
    "status",
    "history",
    "explain",
    "approve",
    "decline",
    "pause",
    "resume",
    "rollback",
    "export",
    "uninstall",
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of a language, those inside lists without their indentation."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indentation}", "", body, flags=re.MULTILINE) for indentation, body in found]


def examples() -> list[str]:
    """Return every example command once, in the order of `ORDER`."""
    documents = [path for path in DOCUMENTS if path.name not in {"README.es.md", "CONTRIBUTING.md", "CHANGELOG.md"}]
    lines = [line for path in documents for block in blocks(path, "console") for line in block.splitlines()]
    unique = dict.fromkeys(line.removeprefix("$ ") for line in lines if line.startswith("$ "))
    return sorted(unique, key=lambda line: ORDER.index(subcommand(line)) if subcommand(line) in ORDER else 0)


def subcommand(example: str) -> str:
    return shlex.split(example)[1]


def is_ours(example: str) -> bool:
    return shlex.split(example)[0] in PROGRAMS


@pytest.mark.parametrize(("path", "text"), [pytest.param(*page, id=page[0].stem) for page in pages()])
def test_a_command_has_a_page_with_its_real_help(path, text):
    assert path.exists(), f"{relative(path)} is missing"
    page = path.read_text(encoding="utf-8")
    assert BEGIN in page and END in page, f"{relative(path)} lacks the markers {BEGIN.strip()} and {END.strip()}"
    assert page == with_help(page, text), "the help has changed: run `python tests/docs/write_help.py`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_relative_link_resolves(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        if not re.match(r"[a-z]+:", link):
            target, _, anchor = link.partition("#")
            resolved = (path.parent / target).resolve() if target else path
            assert resolved.exists(), f"{link} leads nowhere"
            assert not anchor or anchor in anchors(resolved), f"{link}: no such heading"


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_both_readmes_show_the_same_commands():
    english, spanish = (blocks(ROOT / name, "(?:console)?") for name in ("README.md", "README.es.md"))
    assert english
    assert english == spanish


def test_every_subcommand_has_an_example():
    shown = {subcommand(example) for example in examples() if is_ours(example)}
    assert shown == {*ORDER, "run.py"}


def test_every_exported_column_is_documented():
    page = (ROOT / "docs" / "commands" / "export.md").read_text()
    assert [name for name in (*COLUMNS, *COLUMN_FAMILIES) if f"| `{name}` |" not in page] == []


def test_every_setting_is_documented():
    page = (ROOT / "docs" / "connection.md").read_text()
    assert [name for name in Settings.model_fields if f"`GENESIS_{name.upper()}`" not in page] == []


def test_decisions_have_numbers_of_their_own():
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert sorted(set(numbers)) == sorted(numbers)


def test_no_path_of_a_machine_stands_in_a_document():
    for path in DOCUMENTS:
        assert not re.search(r"/(work|root|home)/|/tmp/", path.read_text(encoding="utf-8")), relative(path)


@pytest.fixture
def home(session_folder: Path) -> Iterator[Path]:
    """A place for state and logs that no other test has, which the server's account can enter."""
    path = session_folder / f"documentation-{os.urandom(4).hex()}"
    path.mkdir()
    return path


@pytest.mark.slow
def test_the_examples_run_on_an_embedded_server(home, binaries):
    ours = [example for example in examples() if is_ours(example) and "--dsn" not in example]
    run_all(ours, home, embedded=["--pg-bin", str(binaries.bin_directory)])


@pytest.mark.slow
def test_the_examples_run_on_a_server_of_the_users(home, database, binaries):
    named = [example for example in examples() if is_ours(example) and "--dsn" in example]
    if binaries.has_library("pg_stat_statements"):
        run_sql(database, ["CREATE EXTENSION pg_stat_statements"])
    else:  # there `optimize` has nothing to compare, and says so
        named = [example for example in named if " optimize" not in example or "--dry-run" in example]
    run_all(named, home, dsn=database)


def test_the_psql_and_sql_examples_run(home, database, psql):
    scripts = [example for example in examples() if example.startswith("psql ")]
    assert scripts
    for example in sorted(scripts, key=lambda line: "uninstall" in line):
        arguments = [database if word == "shop" else word for word in shlex.split(example)[1:]]
        if "uninstall" in example:
            run_sql(database, blocks(ROOT / "docs" / "schema.md", "sql"))
        done = subprocess.run([psql, "-X", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{example}\n{done.stderr}"


def run_sql(dsn: str, scripts: Iterable[str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for script in scripts:
            connection.execute(script)


def run_all(commands: list[str], home: Path, **where: object) -> None:
    """Run the commands, each that comes to the same words once; load of ours in earnest only on our own server.

    There the first command of each kind is run in earnest and the others with --dry-run, to keep it short.
    """
    assert commands
    done: set[str] = set()
    for command in commands:
        program, name, *arguments = words_of(command, **where)
        loads = name in HAVE_TABLES and ("--dsn" not in arguments or "--simulate" in arguments or name == "simulate")
        rehearsed = loads and (name in done or "--dsn" in arguments or name in ONLY_REHEARSED)
        words = [*arguments, "--dry-run"] if rehearsed and "--dry-run" not in arguments else arguments
        if " ".join([name, *words]) not in done:
            run(program, name, words, home)
        done |= {" ".join([name, *words]), *([] if "--dry-run" in words else [name])}


def words_of(command: str, *, dsn: str | None = None, embedded: Iterable[str] = ()) -> list[str]:
    """Return an example's words with a short duration, small tables and the test's server."""
    words = shlex.split(command)
    for i, word in enumerate(words[:-1]):
        if word in {"--duration", "-d"}:
            words[i + 1] = SHORT_HOURS.get(words[1], "0.01")
        if word in {"--dsn", "--repository"}:
            words[i + 1] = dsn
    lasts = {"--continuous", "advise"} & {*words} and not {"--duration", "-d"} & {*words}
    bounded = ["--duration", SHORT_HOURS["optimize"]] if lasts else []
    return [
        *words,
        *bounded,
        *embedded,
        *(["--scale", SCALES.get(words[1], "0.02")] if words[1] in HAVE_TABLES else []),
    ]


def propose(home: Path) -> None:
    """Have a proposal wait on every server that was met: in so short a time a run makes none, or tries it."""
    before = Configuration({"work_mem": 4096})
    for folder in (home / "servers").iterdir():
        approvals = Approvals(folder, SystemClock())
        approvals.ask(before, before.replaced({"work_mem": 65536 + len(approvals.all())}), "an example")


def run(program: str, name: str, arguments: list[str], home: Path) -> str:
    """Run a command as ``genesis-pg`` and ``run.py`` do, in this process, and return what it printed."""
    if name in NEED_A_PROPOSAL:
        propose(home)
    chosen = (classic.app, arguments) if program == "python" else (app.app, [name, *arguments])
    printed, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(told):
        patch.chdir(home)
        for variable in [one for one in os.environ if one.startswith(("PG", "POSTGRES_", "GENESIS_"))]:
            patch.delenv(variable)
        patch.setenv("GENESIS_HOME", str(home))
        patch.setenv("COLUMNS", "100")
        patch.setattr(load, "CAPACITY_SECONDS", 0.5)
        code = invoke(chosen[0], chosen[1], project_root=ROOT, program=program)
    allowed = {0, 1} if name in MAY_MISS_A_CRITERION else {0}
    shown = f"{printed.getvalue()[-2000:]}\n{told.getvalue()[-2000:]}"
    assert code in allowed, f"{program} {name} {' '.join(arguments)}: {code}\n{shown}"
    return printed.getvalue()


def test_the_entry_points_start():
    for words in (
        ["run.py", "--help"],
        ["-c", "from ml_postgres_optimization.interfaces.cli import main; main()", "--help"],
    ):
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "Usage:" in done.stdout + done.stderr
