"""Render every command's help at a fixed width, and write it between the markers of its documentation page.

python tests/docs/write_help.py
"""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import typer

from ml_postgres_optimization.interfaces.cli import app, classic

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- help:begin -->\n", "<!-- help:end -->\n"
WIDTH = 100


def pages() -> Iterator[tuple[Path, str]]:
    """Yield the page of every command, with the help that belongs there."""
    folder = ROOT / "docs" / "commands"
    for command in app.app.registered_commands:
        name = command.name or command.callback.__name__
        yield folder / f"{name}.md", rendered(app.app, "genesis-pg", name)
    yield folder / "run.md", rendered(classic.app, "run.py")


def rendered(application: typer.Typer, program: str, *command: str) -> str:
    """Return what ``--help`` prints on a terminal of `WIDTH` columns."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        typer.main.get_command(application).main(
            [*command, "--help"],
            prog_name=program,
            standalone_mode=False,
            terminal_width=WIDTH,
            max_content_width=WIDTH,
        )
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def with_help(page: str, text: str) -> str:
    """Return `page` with `text` between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}```\n{text}\n```\n{END}{after}"


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(with_help(path.read_text(encoding="utf-8"), text), encoding="utf-8")
