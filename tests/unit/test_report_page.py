"""A page is one file that loads nothing and runs nothing, whatever stands on it; files of others are left alone."""

import base64
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.report import (
    Destination,
    LeftOut,
    Page,
    Picture,
    Section,
    render_page,
    write_all,
)
from ml_postgres_optimization.interfaces.reporter import Table

AT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
HOSTILE = "<script src=//evil>alert(1)</script>\"' onload=x $title ${sections} &amp; \u202e\x00\x1b[31m"


class Read(HTMLParser):
    """What a browser makes of a page: its tags, their attributes, its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text.append(data)


def page_of(text, png=b"png"):
    table = Table(text, (text, "b"), [(text, text)], unbroken=1)
    section = Section(text, [text], [Picture("evidence", text, png), LeftOut("effects", text)], [table])
    return Page(text, text, [text], [section], AT)


def test_a_page_says_all_that_stands_on_it():
    section = Section("Part", ["why"], [LeftOut("effects", "no pairs")], [Table("Rows", ("knob",), [("work_mem",)])])
    text = " ".join(Read(render_page(Page("Title", "The finding", ["more"], [section], AT))).text)
    for said in ("Title", "The finding", "more", "Part", "why", "no pairs", "Rows", "knob", "work_mem", "2026-01-01"):
        assert said in text


def test_the_finding_comes_before_everything_else_a_reader_sees():
    body = render_page(Page("Title", "The finding", ["more"], [Section("Part")], AT)).partition("<body>")[2]
    assert body.index("The finding") < body.index("more") < body.index("Part")


def test_a_page_loads_nothing_and_runs_nothing():
    page = render_page(page_of("harmless"))
    read = Read(page)
    assert not re.search(r"https?://|url\(|@import", page)
    assert not {"script", "link", "iframe", "object", "embed"} & set(read.tags)
    sources = [value for name, value in read.attributes if name in {"src", "href", "srcset"}]
    assert sources and all(value.startswith("data:image/png;base64,") for value in sources)
    assert "default-src 'none'" in page


def test_a_picture_is_inside_the_page():
    found = re.search(r'src="data:image/png;base64,([^"]+)"', render_page(page_of("x", b"\x89PNG of ours")))
    assert base64.b64decode(found[1]) == b"\x89PNG of ours"


def test_hostile_text_is_only_text():
    plain, hostile = (Read(render_page(page_of(text))) for text in ("plain", HOSTILE))
    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in plain.attributes]
    text = "".join(hostile.text)
    assert "<script src=//evil>alert(1)</script>" in text and "${sections}" in text
    assert not {"\u202e", "\x00", "\x1b"} & set(text)


@given(st.text())
def test_no_text_changes_what_the_page_is_made_of(text):
    assert Read(render_page(page_of(text))).tags == Read(render_page(page_of("x"))).tags
    render_page(page_of(text)).encode()


def destination(path, content=b"genesis-pg 1"):
    return Destination(path, content, "--report")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_are_written_into_folders_that_are_made(tmp_path):
    paths = [tmp_path / "a" / "b" / "one.html", tmp_path / "two.html"]
    assert write_all(map(destination, paths)) == paths
    assert [path.read_bytes() for path in paths] == [b"genesis-pg 1"] * 2
    assert names_in(tmp_path) == ["a", "two.html"]


def test_what_was_ours_is_replaced(tmp_path):
    path = tmp_path / "report.html"
    write_all([destination(path)])
    write_all([destination(path, b"genesis-pg 2")])
    assert path.read_bytes() == b"genesis-pg 2"


def test_what_is_not_ours_is_left_and_nothing_is_written(tmp_path):
    theirs, ours = tmp_path / "thesis.html", tmp_path / "ours.html"
    theirs.write_text("<html>four years of work</html>")
    with pytest.raises(UsageError, match=r"thesis\.html is there and was not made by genesis-pg") as refused:
        write_all([destination(ours), destination(theirs)])
    assert refused.value.exit_code == 2 and "--report" in refused.value.next_step
    assert theirs.read_text() == "<html>four years of work</html>"
    assert not ours.exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "report.html", tmp_path):
        with pytest.raises(StateError, match="cannot be written") as refused:
            write_all([destination(path)])
        assert refused.value.exit_code == 2
    assert names_in(tmp_path) == ["file"]
