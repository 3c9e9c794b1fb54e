"""What the owner allows: the pause file, proposals that wait for a word, and the two with windows of time."""

import json
import os
import stat
from datetime import UTC, timedelta

import pytest

from ml_postgres_optimization.errors import ChangeRefused, NotNow, StateError, UsageError
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.safety.consent import (
    Answer,
    Approvals,
    ChangeWindow,
    ChangeWindows,
    Consent,
    PauseFile,
)
from ml_postgres_optimization.telemetry import VirtualClock

BEFORE = Configuration({"work_mem": 4096, "jit": True})
AFTER = BEFORE.replaced({"work_mem": 65536})


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def approvals(tmp_path, clock):
    return Approvals(tmp_path, clock)


class TestPauseFile:
    def test_it_pauses_until_it_is_taken_away(self, tmp_path, clock):
        file = PauseFile(tmp_path / "new" / "server")
        assert file.said() is None
        assert file.pause(clock, "incident")
        assert file.said().endswith(": incident")
        assert not file.pause(clock, "again")
        assert "again" not in file.said()
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        assert file.resume()
        assert file.pause(clock, b"caf\xe9".decode(errors="surrogateescape"))
        assert file.said().endswith(": caf?")
        assert file.resume()
        assert not file.resume()
        assert file.said() is None

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"a\nb\x1b[31m" * 1000])
    def test_any_file_pauses_whatever_it_holds(self, tmp_path, content):
        file = PauseFile(tmp_path)
        file.path.write_bytes(content)
        assert file.said() is not None
        assert len(file.said()) <= 500

    def test_what_cannot_be_read_pauses(self, tmp_path):
        file = PauseFile(tmp_path)
        file.path.mkdir()
        assert "cannot be read" in file.said()

    def test_a_dead_link_is_no_way_to_write_elsewhere(self, tmp_path, clock):
        file = PauseFile(tmp_path)
        file.path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StateError, match="File exists"):
            file.pause(clock)
        assert not (tmp_path / "elsewhere").exists()

    def test_where_it_cannot_be_made_that_is_said(self, tmp_path, clock):
        (tmp_path / "server").write_text("no folder")
        with pytest.raises(StateError, match="cannot be made"):
            PauseFile(tmp_path / "server").pause(clock)


class TestApprovals:
    def test_a_proposal_waits_until_it_is_answered_and_is_asked_once(self, approvals):
        assert approvals.ask(BEFORE, AFTER, "memory") is Answer.WAITING
        assert approvals.ask(BEFORE, AFTER, "again") is Answer.WAITING
        (asked,) = approvals.all(Answer.WAITING)
        assert (asked.id, asked.reason, asked.configuration) == (AFTER.id, "memory", AFTER)
        approvals.answer(AFTER.id[:5], Answer.APPROVED, "maria")
        assert approvals.ask(BEFORE, AFTER, "memory") is Answer.APPROVED
        assert approvals.all()[0].answered_by == "maria"

    def test_what_was_tried_is_forgotten_and_asked_for_anew(self, approvals):
        approvals.ask(BEFORE, AFTER, "memory")
        approvals.answer(AFTER.id, Answer.APPROVED, "maria")
        approvals.close(AFTER.id)
        assert approvals.all() == []
        assert approvals.ask(BEFORE, AFTER, "memory") is Answer.WAITING

    def test_going_back_to_the_start_needs_no_word_unless_it_was_declined(self, approvals):
        approvals.know(BEFORE)
        assert approvals.ask(AFTER, BEFORE, "proof") is Answer.APPROVED
        assert approvals.answer_of(BEFORE) is Answer.APPROVED
        approvals.know(AFTER)
        assert approvals.answer_of(BEFORE) is Answer.WAITING
        approvals.ask(AFTER, BEFORE, "back")
        approvals.know(BEFORE)
        assert approvals.ask(AFTER, BEFORE, "proof") is Answer.APPROVED
        assert approvals.answer_of(BEFORE) is Answer.APPROVED
        approvals.answer(BEFORE.id, Answer.DECLINED, "maria")
        approvals.know(BEFORE)
        assert approvals.ask(AFTER, BEFORE, "proof") is Answer.DECLINED

    def test_the_newest_is_never_forgotten_even_if_the_clock_was_set_back(self, approvals, tmp_path):
        later = VirtualClock()
        later.sleep(1000)
        for kilobytes in range(20):
            Approvals(tmp_path, later).ask(BEFORE, BEFORE.replaced({"work_mem": 100 + kilobytes}), "memory")
        approvals.ask(BEFORE, AFTER, "memory")
        assert AFTER.id in {asked.id for asked in approvals.all(Answer.WAITING)}
        assert len(approvals.all()) == 20

    def test_the_last_that_waits_can_be_named_so(self, approvals, clock):
        for kilobytes in (100, 200):
            clock.sleep(1)
            approvals.ask(BEFORE, BEFORE.replaced({"work_mem": kilobytes}), "memory")
        assert approvals.answer("last", Answer.APPROVED, "maria").after["work_mem"] == 200
        assert approvals.answer("last", Answer.DECLINED, "maria").after["work_mem"] == 100
        with pytest.raises(UsageError):
            approvals.answer("last", Answer.APPROVED, "maria")

    def test_files_are_for_us_alone(self, approvals, tmp_path):
        approvals.ask(BEFORE, AFTER, "memory")
        (path,) = tmp_path.glob("proposals/*.json")
        assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    @pytest.mark.parametrize("name", ["", "abc", "zzzz", "*", "../journal", "a" * 300, "\0", AFTER.id[:3]])
    def test_a_name_that_is_none_is_refused(self, approvals, name):
        approvals.ask(BEFORE, AFTER, "memory")
        with pytest.raises(UsageError, match=f"waiting are: {AFTER.id}"):
            approvals.answer(name, Answer.APPROVED, "maria")

    def test_the_beginning_of_several_is_refused(self, approvals, monkeypatch):
        found, prefixes = [], {}
        for kilobytes in range(1, 2000):
            configuration = BEFORE.replaced({"work_mem": kilobytes})
            found = prefixes.setdefault(configuration.id[:4], [])
            found.append(configuration)
            if len(found) == 2:
                break
        assert len(found) == 2
        for configuration in found:
            approvals.ask(BEFORE, configuration, "memory")
        with pytest.raises(UsageError, match="could be any of"):
            approvals.answer(found[0].id[:4], Answer.APPROVED, "maria")

    def test_of_what_nobody_answers_the_latest_stay(self, approvals, clock):
        for kilobytes in range(30):
            clock.sleep(1)
            approvals.ask(BEFORE, BEFORE.replaced({"work_mem": 100 + kilobytes}), "memory")
        waiting = approvals.all(Answer.WAITING)
        assert [asked.after["work_mem"] for asked in waiting] == list(range(110, 130))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff",
            b"[]",
            b"{}",
            b"[" * 100_000,
            b'{"format": 2}',
            json.dumps({"format": 1, "id": AFTER.id, "unknown": 1}).encode(),
            json.dumps(
                {
                    "format": 1,
                    "id": AFTER.id,
                    "at": "",
                    "before": {},
                    "after": {"jit": [1]},
                    "reason": "",
                    "answer": "approved",
                }
            ).encode(),
            json.dumps(
                {
                    "format": 1,
                    "id": AFTER.id,
                    "at": 5,
                    "before": dict(BEFORE),
                    "after": dict(AFTER),
                    "reason": "",
                    "answer": "approved",
                }
            ).encode(),
            # another configuration under the id that was approved
            json.dumps(
                {
                    "format": 1,
                    "id": AFTER.id,
                    "at": "",
                    "before": dict(BEFORE),
                    "after": {"work_mem": 1 << 30, "jit": True},
                    "reason": "",
                    "answer": "approved",
                }
            ).encode(),
        ],
    )
    def test_a_file_that_is_none_of_ours_approves_nothing(self, approvals, tmp_path, content):
        (tmp_path / "proposals").mkdir()
        (tmp_path / "proposals" / f"{AFTER.id}.json").write_bytes(content)
        assert approvals.answer_of(AFTER) is Answer.WAITING
        assert approvals.all() == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_is_closed_is_said(self, approvals, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(StateError, match="cannot be used"):
            approvals.ask(BEFORE, AFTER, "memory")


class TestConsent:
    def test_whoever_asks_for_nothing_is_free(self, clock):
        consent = Consent(clock)
        assert consent.hindrance() is None
        assert consent.ask(BEFORE, AFTER, "memory") is None
        consent.require(AFTER)

    def test_a_pause_hinders_everything_and_says_what_ends_it(self, clock, tmp_path):
        consent = Consent(clock, pause=PauseFile(tmp_path))
        consent.look()
        PauseFile(tmp_path).pause(clock, "incident")
        with pytest.raises(NotNow, match=r"Changes are paused .*incident") as refused:
            consent.look()
        assert "genesis-pg resume" in refused.value.next_step
        with pytest.raises(NotNow):
            consent.require(AFTER)

    def test_what_is_on_trial_is_put_back_within_the_window(self, clock):
        now = clock.now().astimezone(UTC)
        minute = now.hour * 60 + now.minute
        window = ChangeWindow(frozenset(range(7)), minute, (minute + 10) % 1440, UTC)
        consent = Consent(clock, windows=ChangeWindows((window,)))
        assert consent.hindrance(needed_seconds=300) is None
        assert consent.hindrance(needed_seconds=700).ends_at > now + timedelta(hours=23)
        clock.sleep(consent.seconds_left() - 1)
        consent.look()
        clock.sleep(2)
        with pytest.raises(NotNow, match=r"only daily .* UTC; the next one opens at"):
            consent.look()
        assert window in consent._windows.windows
        assert consent._windows.is_open(clock.now())

    def test_without_a_word_nothing_comes_into_force(self, clock, tmp_path):
        approvals = Approvals(tmp_path, clock)
        consent = Consent(clock, approvals=approvals)
        with pytest.raises(NotNow, match="not approved"):
            consent.require(AFTER)
        assert "waits for a word" in consent.ask(BEFORE, AFTER, "memory").reason
        approvals.answer(AFTER.id, Answer.DECLINED, "maria")
        with pytest.raises(ChangeRefused, match="declined"):
            consent.ask(BEFORE, AFTER, "memory")
        approvals.answer(AFTER.id, Answer.APPROVED, "maria")
        assert consent.ask(BEFORE, AFTER, "memory") is None
        consent.require(AFTER)
        consent.look(AFTER)
        approvals.answer(AFTER.id, Answer.DECLINED, "maria")
        with pytest.raises(NotNow, match="was declined"):
            consent.look(AFTER)
