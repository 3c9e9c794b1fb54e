"""What a user is told of recorded trials in files, and of what they brought, on a real server."""

import html
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from command_line import CommandLine, clean_environment

from ml_postgres_optimization.interfaces.commands import explanation
from ml_postgres_optimization.interfaces.trial_view import trial_record
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.target.postgres.connection import connect, resolve_connection
from ml_postgres_optimization.target.postgres.repository import Repository, TrialRecord
from ml_postgres_optimization.trials import Interval, Measure, Outcome, Pair, PairedTest, Proposal, Trial, Verdict

HOSTILE = "<img src=x onerror=alert(1)>"
STOCK = Configuration({"work_mem": 4096, "jit": True})
TUNED = STOCK.replaced({"work_mem": 16384})
AT = datetime(2026, 1, 1, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n"
NAMES = ["changes", "effects", "evidence"]


def record(number, baseline, candidate, outcome="promoted", origin="rules", ratio=0.8):
    return TrialRecord(
        id=f"20260101T00000{number}-0001",
        started_at=AT + timedelta(minutes=10 * number),
        ended_at=AT + timedelta(minutes=10 * number + 6),
        baseline=baseline,
        candidate=candidate,
        origin=origin,
        reason=f"sorts spill to disk {HOSTILE}",
        outcome=outcome,
        ratio=ratio,
        ratio_low=ratio - 0.1,
        ratio_high=ratio + 0.1,
        verdict_reason="the whole interval lies below 1",
        pairs=tuple((0.010, 0.010 * ratio + 0.0001 * place, place % 2 == 0) for place in range(12)),
    )


PROMOTED = record(1, STOCK, TUNED)
PROOF = record(2, TUNED, STOCK, outcome="rejected", origin="proof", ratio=1.2)


@pytest.fixture
def here(monkeypatch, capsys, tmp_path, database):
    """The command line on a fresh database with schema genesis in it."""
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("COLUMNS", "140")
    cli = CommandLine(capsys, tmp_path / "home", database)
    cli("setup").done()
    return cli


def add(cli, *records):
    with connect(resolve_connection(cli.dsn, {})) as connection:
        for one in records:
            Repository(connection).add_trial(one)


@pytest.fixture
def recorded(here):
    add(here, PROMOTED)
    return here


def test_a_report_is_one_page_with_its_pictures_in_it(recorded, tmp_path):
    path = tmp_path / "new" / "report.html"
    ended = recorded("explain", "--report", path).done()
    assert f"Written: {path}" in ended.out
    assert "No picture of the importance: no forest has learned" in ended.out
    page = path.read_text()
    assert page.count("data:image/png;base64,") == page.count("<img ") == len(NAMES)
    assert "The change was kept: −20 % (−30 % to −10 %) in response time, over 12 pairs of blocks." in page
    assert html.escape(HOSTILE) in page and HOSTILE not in page
    assert "no forest has learned" in page


def test_pictures_are_written_beside_each_other_and_named_in_the_json(recorded, tmp_path):
    folder = tmp_path / "pictures"
    document = recorded("explain", PROMOTED.id, "--pictures", folder, "--json").done().document
    paths = [folder / f"{PROMOTED.id}-{name}.png" for name in NAMES]
    assert sorted(document["files"]) == sorted(map(str, folder.iterdir())) == sorted(map(str, paths))
    for path in paths:
        head = path.read_bytes()[:24]
        assert head.startswith(PNG)
        assert struct.unpack(">I", head[16:20]) == (1280,)


def test_nothing_is_written_unasked(recorded, tmp_path):
    assert recorded("explain", "--json").done().document["files"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_the_same_report_may_be_written_again_and_a_file_of_somebody_elses_may_not(recorded, tmp_path):
    ours, theirs = tmp_path / "ours.html", tmp_path / "theirs.html"
    for _ in range(2):
        recorded("explain", "--report", ours).done()
    theirs.write_text("years of work")
    recorded("explain", "--report", theirs).is_refused(2, str(theirs), "was not made by genesis-pg", "--report")
    assert theirs.read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_an_error(recorded, tmp_path):
    (tmp_path / "file").write_text("")
    for option, place in (("--report", tmp_path / "file" / "report.html"), ("--pictures", tmp_path / "file")):
        refused = recorded("explain", option, place, "--json")
        refused.is_refused(2, str(place), "cannot be written", option)
        assert refused.document["error"]["kind"] == "StateError"


def test_an_id_does_not_lead_out_of_the_folder(here, tmp_path):
    add(here, replace(PROMOTED, id="../../stray"))
    folder = tmp_path / "a" / "b"
    here("explain", "--pictures", folder).done()
    assert sorted(path.name for path in folder.iterdir()) == [f"_.._stray-{name}.png" for name in NAMES]


def test_without_trials_nothing_is_written(here, tmp_path):
    ended = here("explain", "--report", tmp_path / "report.html").done()
    assert "No trial was recorded yet" in ended.out and "Nothing was written." in ended.out
    assert not (tmp_path / "report.html").exists()


def test_a_trial_without_pairs_is_told_without_the_pictures_that_need_them(here, tmp_path):
    aborted = replace(
        PROMOTED, pairs=(), outcome="aborted", ratio=float("inf"), ratio_low=0.0, ratio_high=float("inf")
    )
    add(here, replace(aborted, verdict_reason="nothing finished"))
    ended = here("explain", "--report", tmp_path / "report.html").done()
    assert "No picture of the evidence: no pair of blocks could be compared." in ended.out
    page = (tmp_path / "report.html").read_text()
    assert "The trial was stopped, and the change put back: nothing finished." in page
    assert page.count("<img ") == 1


def test_what_was_discarded_after_a_switch_is_told(here):
    figures = {"settle_seconds": 4.5, "settle_pairs_left_out": 2.0}
    add(here, replace(PROMOTED, figures=figures))
    told = "Discarded before each block: 4.5 s; 2 pairs that began before the response had settled were left out."
    assert told in " ".join(here("explain").done().out.split())
    document = here("explain", "--json").done().document
    assert document["settle_seconds"] == 4.5
    assert document["figures"] == figures


def test_a_trial_of_an_earlier_version_does_not_say_what_was_discarded(here):
    add(here, replace(PROMOTED, figures={}))
    assert "Discarded" not in here("explain").done().out
    assert here("explain", "--json").done().document["settle_seconds"] is None


def test_the_effect_by_every_measure_is_kept(here):
    test = PairedTest()
    pairs = tuple(Pair(0.010, 0.007 + 0.0001 * number, number % 2 == 0) for number in range(12))
    for pair in pairs:
        test.add(pair)
    effects = {Measure.MEAN: test.interval(), Measure.P99: Interval(0.9, 0.0, float("inf"))}
    verdict = Verdict(Outcome.PROMOTED, *test.interval(), pairs, "the whole interval lies below 1")
    proposal = Proposal(TUNED, "forest", "it expects so", Prediction(0.9, 0.8, 1.0, 0.9))
    figures = {f"{arm}_{measure}_seconds": 0.01 for arm in ("baseline", "candidate") for measure in Measure}
    trial = Trial("one", STOCK, proposal, verdict, AT, AT, figures, effects)
    add(here, trial_record(trial))
    document = here("explain", "--json").done().document
    assert document["effects"]["mean"]["high"] == pytest.approx(test.interval().high)
    assert document["effects"]["p99"] == {"ratio": 0.9, "low": 0.0, "high": None}
    assert document["figures"] == figures
    out = here("explain").done().out
    assert "−10 % (interval still open)" in out


def test_knobs_that_mattered_are_told_with_their_uncertainty(recorded, tmp_path, monkeypatch):
    score = SimpleNamespace(beats_naive=True)
    model = SimpleNamespace(score=score, importance=lambda: {"work_mem": (0.12, 0.02), "jit": (0.01, 0.02)})
    monkeypatch.setattr(explanation, "load_forest", lambda *_: SimpleNamespace(model=model))
    path = tmp_path / "report.html"
    document = recorded("explain", "--report", path, "--json").done().document
    assert document["importance"] == {"work_mem": {"mean": 0.12, "deviation": 0.02}}
    assert document["importance_unknown_because"] == ""
    assert path.read_text().count("<img ") == len(NAMES) + 1
    score.beats_naive = False
    document = recorded("explain", "--json").done().document
    assert document["importance"] == {} and "does not beat" in document["importance_unknown_because"]


class TestHistory:
    """What all trials brought."""

    def test_each_trial_and_all_of_them(self, here):
        second = record(3, TUNED, TUNED.replaced({"jit": False}), ratio=0.9)
        rejected = record(4, second.candidate, STOCK, outcome="rejected", ratio=1.5)
        add(here, PROMOTED, PROOF, second, rejected)
        document = here("history", "--json").done().document
        assert (document["total"], document["promoted"]) == (4, 2)
        assert [one["so_far"]["ratio"] for one in document["trials"]] == pytest.approx([0.72, 0.72, 0.8, 0.8])
        assert document["brought"]["promotions"] == [PROMOTED.id, second.id]
        assert document["brought"]["low"] == pytest.approx(0.7 * 0.8)
        assert not any(one["in_force"] for one in document["trials"])
        out = here("history").done().out
        assert "Trials: 4; promoted: 2; proofs: 1." in out
        assert "−28 % (−44 % to −10 %) in response time, the product of 2 promotions" in out
        assert f"Not in force by the journal of this installation: {PROMOTED.id}, {second.id}" in out

    def test_a_proof_stands_beside_what_it_checks(self, here):
        add(here, PROMOTED, PROOF)
        (proof,) = here("history", "--json").document["proofs"]
        assert proof["promotions"] == [PROMOTED.id]
        assert proof["promised"]["ratio"] == pytest.approx(0.8)
        assert proof["proven"]["ratio"] == pytest.approx(1 / 1.2)
        assert not proof["initial_put_back"]
        out = here("history").done().out
        assert "−20 % (−30 % to −10 %)  −17 % (−23 % to −9 %)  kept" in out

    def test_a_proof_that_put_the_initial_configuration_back_is_no_promotion(self, here):
        add(here, PROMOTED, replace(PROOF, outcome="promoted", ratio=0.9))
        document = here("history", "--json").document
        assert document["promoted"] == 1
        assert document["brought"] == {"promotions": [], "ratio": 1, "low": 1, "high": 1}
        out = here("history").done().out
        assert "initial put back" in out and "In total" not in out

    def test_no_trial_at_all(self, here):
        document = here("history", "--json").done().document
        prevention = {"occasions": 0, "savings": [], "last": []}
        assert json.dumps(document) == json.dumps(
            {"trials": [], "total": 0, "promoted": 0, "brought": None, "proofs": [], "prevention": prevention}
        )
