"""The extended test's report: one file, read in a real browser, that says all and asks nobody."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from chromium import PROGRAM, browser
from simulated_run import START, SimulatedRun, eventful

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.interfaces.report.soak import render_soak
from ml_postgres_optimization.interfaces.report.soak.files import CSV, HLOG, HTML, JSON, write_report
from ml_postgres_optimization.interfaces.report.soak.scale import TimeScale, linear_scale, logarithmic_scale
from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.interval import Event, EventKind, IntervalState
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.verdict import judge

AT = datetime(2026, 3, 5, 7, tzinfo=UTC)
RUN = eventful(interval_seconds=360, per_second=1)
HOSTILE = "</script><script>alert(1)</script><img src=//evil onerror=x>\"' ${style} \u202e\x00"


@pytest.fixture(scope="module")
def report(module_folder):
    return write_report(RUN.description, RUN.intervals(), Limits(), module_folder / "run", AT)


@pytest.fixture(scope="module")
def page(report):
    return report.paths[HTML].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def opened(report, module_folder):
    if PROGRAM is None:
        pytest.skip("no Chromium is installed (Debian's package chromium)")
    with browser(module_folder / "profile") as one:
        one.open(report.paths[HTML].as_uri(), 1280, 800)
        yield one


def test_all_files_are_written_and_say_the_same(report):
    assert {path.name for path in report.paths.values()} == {HTML, JSON, CSV, HLOG}
    document = json.loads(report.paths[JSON].read_text(encoding="utf-8"))
    assert document["verdict"] == report.verdict.result == "failed"
    assert document["events"][0]["kind"] == "checkpoint"
    assert report.result().exit_code == 1
    assert (
        report.result().lines[0].startswith("Failed: 1 of 7 criteria was not held in 72 h. Use of the error budget")
    )


def test_the_page_is_one_file_that_is_whole_in_itself(page):
    assert not re.search(r"https?://|url\(|@import", page)
    assert page.count("<script") == 2 and "default-src 'none'" in page


def test_what_is_not_measured_is_not_drawn(page):
    plots = re.findall(r'<path class="line c1[^"]*" d="([^"]*)"', page)
    assert plots
    for plot in plots:
        # four stretches are left by the server's outage, the runner's and the record that was lost
        assert plot.count("M") >= 3
        assert "nan" not in plot.lower()


def test_a_hostile_text_is_only_text():
    events = (Event(EventKind.FAULT, HOSTILE, START + timedelta(hours=1)),)
    run = replace(RUN, events=events, hours=3)
    description = replace(run.description, server=HOSTILE, load=HOSTILE, facts={HOSTILE: HOSTILE}, violation=HOSTILE)
    figures = fold(description, run.intervals())
    page = render_soak(figures, judge(figures, Limits()), AT)
    assert page.count("<script") == 2 and "<img" not in page
    assert not {"\u202e", "\x00"} & set(page)


@pytest.mark.parametrize("hours", [0.05, 1, 30])
def test_a_run_of_any_length_has_a_page(hours):
    run = SimulatedRun(hours=hours, interval_seconds=max(10, hours * 60), per_second=2, daily=0.0)
    figures = fold(run.description, run.intervals())
    assert "Response time" in render_soak(figures, judge(figures, Limits()), AT)


def test_a_run_in_which_nothing_was_measured_has_a_page_that_says_so():
    for intervals in ([], SimulatedRun(hours=1, gaps={(0, 1): IntervalState.LOST}).intervals()):
        figures = fold(RUN.description, intervals)
        page = render_soak(figures, judge(figures, Limits()), AT)
        assert "Not decidable" in page and "Nothing could be decided" in page
        assert "of the 72 h that were planned" in page


def test_a_report_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written") as refused:
        write_report(RUN.description, [], Limits(), tmp_path / "file" / "run", AT)
    assert refused.value.exit_code == 2


def test_axes_have_round_ends_and_few_labels():
    import numpy as np

    scale = linear_scale(np.array([0.0, 37.0, np.nan]))
    assert (scale.low, scale.high, scale.ticks) == (0.0, 40.0, (0, 10, 20, 30, 40))
    scale = logarithmic_scale(np.array([0.0013, 0.045]))
    assert scale.low <= 0.0013 and scale.high >= 0.045 and len(scale.ticks) <= 9
    assert logarithmic_scale(np.array([0.01])).high > logarithmic_scale(np.array([0.01])).low
    labels = TimeScale(START, 72 * 3600.0).labels()
    assert labels[0] == (0.0, "06:00") and (0.25, "3 Mar") in labels and len(labels) == 13
    assert len(TimeScale(START, 90.0).labels()) >= 2


def test_a_browser_asks_for_nothing_but_the_file_and_complains_of_nothing(opened, report):
    assert opened.value("document.title") == "Extended test 20260302T060000-5041: Failed"
    asked = [url for url in opened.requests() if not url.startswith("data:")]
    assert asked == [report.paths[HTML].as_uri()]
    assert opened.complaints() == []


def test_the_first_screen_holds_the_verdict_the_four_figures_and_the_criteria(opened):
    opened.value("scrollTo(0, 0)")
    for selector in (".word", ".headline", ".card:nth-child(4)", ".criteria tr:last-child", "dl dd:last-child"):
        box = opened.value(f"JSON.stringify(document.querySelector('{selector}').getBoundingClientRect())")
        box = json.loads(box)
        assert box["height"] > 0 and box["top"] >= 0 and box["bottom"] <= 800 and box["right"] <= 1280, selector
    assert opened.value("document.querySelector('.word').innerText") == "Failed"


def test_values_are_read_out_by_pointer_and_by_keyboard(opened):
    box = json.loads(
        opened.value(
            "(() => { const p = document.querySelector('[data-plot]'); p.scrollIntoView({block: 'center'});"
            " return JSON.stringify(p.getBoundingClientRect()) })()"
        )
    )
    x = box["left"] + box["width"] * 25.25 / 72
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=box["top"] + 20)
    text = opened.value("document.getElementById('reading').innerText")
    assert "2026-03-03 07:12, hour 25.2" in text and "p99.9" in text and "work_mem 4 MB" in text
    opened.value("document.querySelectorAll('[data-plot]')[1].focus()")
    opened.call("Input.dispatchKeyEvent", type="keyDown", key="End")
    text = opened.value("document.getElementById('reading').innerText")
    assert "hour 71.9" in text and "offered" in text
    opened.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    assert opened.value("document.getElementById('reading').hidden") is True


def test_a_phone_needs_no_scrolling_sideways(opened):
    opened.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
    try:
        assert opened.value("document.documentElement.scrollWidth") <= 390
    finally:
        opened.call("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
