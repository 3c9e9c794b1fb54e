"""A page in one file: text, tables and pictures, readable anywhere, with nothing to load and nothing to run."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from string import Template

from ml_postgres_optimization import __version__
from ml_postgres_optimization.interfaces.reporter import Table
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line

GENERATOR = "genesis-pg"
_TEMPLATE = "page.html"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure.

    Parameters
    ----------
    name : str
        A word for file names: ``evidence``.
    caption : str
        How to read it; stands for it where it cannot be seen.
    png : bytes
    """

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A figure that the data do not allow.

    Parameters
    ----------
    name : str
    reason : str
        A sentence for the user.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page, in the order of reading: text, pictures, tables.

    Parameters
    ----------
    title : str
    paragraphs : sequence of str
    pictures : sequence of Picture or LeftOut
    tables : sequence of Table
    """

    title: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture | LeftOut] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on a page; any text may be hostile, and is only text.

    Parameters
    ----------
    title : str
    headline : str
        The finding, in one sentence: for whoever reads nothing else.
    summary : sequence of str
        Paragraphs for the first screen.
    sections : sequence of Section
    made_at : datetime
        Aware.
    """

    title: str
    headline: str
    summary: Sequence[str]
    sections: Sequence[Section]
    made_at: datetime


def render_page(page: Page) -> str:
    """Return `page` as one HTML document that asks no network and no script."""
    template = Template((files(__package__) / _TEMPLATE).read_text(encoding="utf-8"))
    return template.substitute(
        generator=f"{GENERATOR} {__version__}",
        title=escaped(page.title),
        headline=escaped(page.headline),
        summary=_paragraphs(page.summary),
        sections="\n".join(map(_section, page.sections)),
        footer=escaped(f"Made by {GENERATOR} {__version__}, {page.made_at:%Y-%m-%d %H:%M} UTC"),
    )


def escaped(text: str) -> str:
    """Return `text` so that neither HTML nor invisible characters (one that turns the direction) act on the page."""
    return html.escape("\n".join(map(on_one_line, text.splitlines())))


def _paragraphs(texts: Sequence[str]) -> str:
    return "\n".join(f"<p>{escaped(text)}</p>" for text in texts)


def _section(section: Section) -> str:
    parts = (
        f"<section>\n<h2>{escaped(section.title)}</h2>",
        _paragraphs(section.paragraphs),
        *map(_figure, section.pictures),
        *map(render_table, section.tables),
        "</section>",
    )
    return "\n".join(filter(None, parts))


def _figure(picture: Picture | LeftOut) -> str:
    if isinstance(picture, LeftOut):
        return f'<p class="left-out">No picture here: {escaped(picture.reason)}</p>'
    caption, data = escaped(picture.caption), base64.b64encode(picture.png).decode("ascii")
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def render_table(table: Table) -> str:
    """Return `table` as HTML; any text in it is only text."""
    heads = "".join(f'<th scope="col">{escaped(column)}</th>' for column in table.columns)
    rows = "\n".join(f"<tr>{_cells(table, row)}</tr>" for row in table.rows)
    return (
        f'<div class="table"><table><caption>{escaped(table.title)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cells(table: Table, row: Sequence[str]) -> str:
    marks = (' class="unbroken"' if number < table.unbroken else "" for number in range(len(row)))
    return "".join(f"<td{mark}>{escaped(cell)}</td>" for mark, cell in zip(marks, row, strict=True))
