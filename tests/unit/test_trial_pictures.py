"""Pictures of trials: real PNG, the same from the same trial, and none that says more than the data."""

import io
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from recorded_trials import STOCK, TUNED, recorded

from ml_postgres_optimization.interfaces.report import LeftOut, Picture, canvas
from ml_postgres_optimization.interfaces.report.canvas import DOTS_PER_INCH, WIDTH_INCHES, change_label, ratio_axis
from ml_postgres_optimization.interfaces.report.changes import changes_picture
from ml_postgres_optimization.interfaces.report.effects import effects_picture
from ml_postgres_optimization.interfaces.report.evidence import evidence, evidence_picture
from ml_postgres_optimization.interfaces.report.importance import importance_picture
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.target.postgres.repository import SlowerPart

HOSTILE = "<b>$\\frac{x$ \u202e\n\x1b[31m" + "漢" * 300
KEPT = {
    f"effect_{measure}_{part}": value
    for measure in ("mean", "p95")
    for part, value in {"ratio": 0.8, "low": 0.7, "high": 0.9}.items()
}


def pixels(picture):
    """Decode a picture, and check that it is as wide as all are."""
    assert isinstance(picture, Picture)
    decoded = imread(io.BytesIO(picture.png))
    assert decoded.shape[1] == round(WIDTH_INCHES * DOTS_PER_INCH)
    assert decoded.std() > 0.02, "an empty picture"
    return decoded


def drawn_texts(monkeypatch, draw):
    """Return every text of the picture that `draw` makes."""
    texts, original = [], canvas.paint

    def paint(height, fill):
        def and_read(axes):
            fill(axes)
            figure = axes.get_figure()
            texts.extend(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")))

        return original(height, and_read)

    for module in ("changes", "effects", "evidence", "importance"):
        monkeypatch.setattr(f"{canvas.__package__}.{module}.paint", paint)
    draw()
    return "\n".join(texts)


@pytest.mark.parametrize("pairs", [1, 5, 6, 60])
@pytest.mark.parametrize("design", ["switchback", "concurrent"])
def test_the_evidence_is_drawn_from_the_first_pair_on(pairs, design):
    record = recorded(pairs, design=design)
    pixels(evidence_picture(record, list(evidence(record))))


def test_the_evidence_says_where_there_is_no_interval(monkeypatch):
    for pairs in (1, 5, 6, 20):
        record = recorded(pairs)
        told = drawn_texts(monkeypatch, lambda record=record: evidence_picture(record, list(evidence(record))))
        assert "no interval yet" in told
        assert ("interval still open" in told) == (pairs < 6)
        assert ("95 % interval" in told) == (pairs >= 6)


def test_an_interval_of_one_look_can_be_seen():
    record = recorded(6)
    drawn = pixels(evidence_picture(record, list(evidence(record))))[..., :3]
    band = np.abs(drawn - np.array([0.77, 0.9, 0.97])).max(axis=2) < 0.02  # sky blue at a third of its strength
    assert band[:600, -200:].sum() > 2_000


def test_the_evidence_without_pairs_is_left_out():
    record = recorded(0, outcome="aborted", ratio=math.inf, ratio_low=0.0, ratio_high=math.inf)
    left_out = evidence_picture(record, list(evidence(record)))
    assert isinstance(left_out, LeftOut) and "no pair" in left_out.reason


def test_a_pair_far_out_is_told_and_does_not_flatten_the_others(monkeypatch):
    record = recorded(20)
    record = replace(record, pairs=(*record.pairs, (0.01, 5.0, True)))
    assert "500×" in drawn_texts(monkeypatch, lambda: evidence_picture(record, list(evidence(record))))


def test_the_evidence_replays_the_test_of_the_trial():
    record = recorded(20)
    steps = list(evidence(record))
    assert [step.pairs for step in steps] == list(range(1, 21))
    assert steps[-1].so_far == (record.ratio, record.ratio_low, record.ratio_high)
    assert all(step.so_far.high == math.inf for step in steps[:5])
    assert steps[5].so_far.high < math.inf


def test_the_effect_is_drawn_by_every_measure_that_was_kept(monkeypatch):
    record = recorded(figures={**KEPT, "baseline_p95_seconds": 0.02, "candidate_p95_seconds": 0.016})
    told = drawn_texts(monkeypatch, lambda: pixels(effects_picture(record)))
    for text in ("objective", "mean response", "95th percentile", "20.00 ms → 16.00 ms", "−20 % (−30 % to −10 %)"):
        assert text in told
    assert "99th percentile" not in told


def test_the_objective_is_not_drawn_twice(monkeypatch):
    record = recorded(figures=KEPT, ratio=0.8, ratio_low=0.7, ratio_high=0.9)
    told = drawn_texts(monkeypatch, lambda: effects_picture(record))
    assert "objective" not in told and "mean response\n(the verdict's)" in told


def test_a_measure_without_an_interval_is_told_so(monkeypatch):
    record = recorded(figures={"baseline_p99_seconds": 0.02, "candidate_p99_seconds": 0.03})
    assert "+50 % (no interval kept)" in drawn_texts(monkeypatch, lambda: pixels(effects_picture(record)))


def test_an_open_interval_is_drawn_as_open(monkeypatch):
    record = recorded(3)
    assert record.ratio_high == math.inf
    assert "interval still open" in drawn_texts(monkeypatch, lambda: pixels(effects_picture(record)))


def test_parts_that_got_slower_are_drawn(monkeypatch):
    record = recorded(slower_parts=(SlowerPart("query 42", 0.03, 1.4, 1.2, math.inf),))
    assert "query 42" in drawn_texts(monkeypatch, lambda: pixels(effects_picture(record)))


def test_an_effect_that_is_not_known_is_left_out():
    nothing = {"baseline_mean_seconds": 0.01, "candidate_mean_seconds": math.nan}
    left_out = effects_picture(recorded(0, ratio=math.inf, figures=nothing))
    assert isinstance(left_out, LeftOut) and "no pair" in left_out.reason


def test_every_change_is_drawn_with_its_factor_where_it_has_one(monkeypatch):
    told = drawn_texts(monkeypatch, lambda: pixels(changes_picture(recorded(), load_catalogue())))
    for text in ("4 knobs", "work_mem", "4MB", "64MB", "×16", "switched off", "another choice", "no factor"):
        assert text in told


def test_many_changes_make_a_taller_picture_up_to_a_limit(monkeypatch):
    many = STOCK.replaced({f"knob_{number}": number + 1 for number in range(100)})
    picture = changes_picture(recorded(candidate=many), load_catalogue())
    assert pixels(picture).shape[0] < 8.5 * DOTS_PER_INCH
    told = drawn_texts(monkeypatch, lambda: changes_picture(recorded(candidate=many), load_catalogue()))
    assert "100 knobs; 76 more are in the table" in told


def test_no_change_is_left_out():
    assert isinstance(changes_picture(recorded(candidate=STOCK), load_catalogue()), LeftOut)


def test_importance_is_drawn_with_what_was_tried_in_it(monkeypatch):
    importance = {f"knob_{number}": (number / 100, 0.01) for number in range(40)} | {"jit": (-0.5, 0.2)}
    told = drawn_texts(monkeypatch, lambda: pixels(importance_picture(importance, {"jit"}, "")))
    assert "jit" in told and "knob_39" in told and "knob_1\n" not in told
    assert importance_picture({}, {"jit"}, "nothing was learned.") == LeftOut("importance", "nothing was learned.")


def test_hostile_names_are_drawn_as_they_are(monkeypatch):
    record = recorded(
        candidate=TUNED.replaced({HOSTILE: HOSTILE}),
        verdict_reason=HOSTILE,
        slower_parts=(SlowerPart(HOSTILE, 0.03, 1.4, 1.2, 1.6),),
    )
    told = drawn_texts(
        monkeypatch,
        lambda: [
            pixels(changes_picture(record, load_catalogue())),
            pixels(evidence_picture(record, list(evidence(record)))),
            pixels(effects_picture(record)),
            pixels(importance_picture({HOSTILE: (0.1, 0.01)}, {HOSTILE}, "")),
        ],
    )
    assert "\\frac{x$" in told
    assert not {"\u202e", "\x1b"} & set(told)


def test_a_style_of_the_users_does_not_change_a_picture():
    import matplotlib as mpl

    record = recorded()
    picture = effects_picture(record)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 20}):
        styled = effects_picture(record)
        assert mpl.rcParams["font.size"] == 30
    assert np.array_equal(pixels(picture), pixels(styled))


@pytest.mark.parametrize(("low", "high"), [(0.99, 1.01), (0.8, 1.25), (0.3, 3.3), (0.02, 50), (1e-4, 1e4)])
def test_an_axis_of_ratios_has_few_ticks_and_no_change_is_one_of_them(low, high):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    ratio_axis(axes, "x", low, high)
    ticks = list(axes.get_xticks())
    assert 3 <= len(ticks) <= 12
    assert any(math.isclose(tick, 1) for tick in ticks)
    assert all(low <= tick <= high for tick in ticks)


def test_a_change_is_labelled_as_a_person_would():
    assert [change_label(ratio) for ratio in (0.5, 1.0, 1.125, 5.0)] == ["−50 %", "0 %", "+12.5 %", "5×"]


def test_nothing_but_drawing_imports_matplotlib():
    code = (
        "import sys, ml_postgres_optimization.interfaces.cli.app; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'matplotlib', 'PIL'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
