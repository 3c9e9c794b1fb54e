"""The guard on a simulated server: what it writes, in which order, and what it puts back."""

import signal
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ml_postgres_optimization.errors import (
    AlreadyRunning,
    ChangeRefused,
    JournalError,
    NotNow,
    PrivilegeMissing,
    ServerUnreachable,
    TargetError,
    UsageError,
)
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.safety.constraints import review
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal, RecordKind, Terms, decoded, read_journal
from ml_postgres_optimization.safety.rollback import rollback
from ml_postgres_optimization.safety.undo import put_back, undo_unfinished
from ml_postgres_optimization.target.simulated import SimulatedTarget
from ml_postgres_optimization.telemetry import VirtualClock

CANDIDATE = {"work_mem": 16384, "jit": False, "random_page_cost": 1.1}


class Witness:
    """A simulated server that tells what was done to it, and fails when told to.

    Attributes
    ----------
    done : list of tuple
        What was done, with the status that the trial had in the journal on disk at that moment.
    failure : dict of str to BaseException
        Raised once at that method, or at that method of that knob (``write jit``).
    is_away : bool
    """

    def __init__(self, journal):
        self.target = SimulatedTarget(VirtualClock(), seed=1)
        self.journal = journal
        self.done = []
        self.failure = {}
        self.is_away = False

    def settings(self, names):
        self._pass("settings")
        return self.target.settings(names)

    def write(self, name, value, *, only_if):
        self._pass("write", name)
        self._note("write", name)
        return self.target.write(name, value, only_if=only_if)

    def restore(self, name, written_value, *, only_if):
        self._pass("restore", name)
        self._note("restore", name)
        return self.target.restore(name, written_value, only_if=only_if)

    def reload(self):
        self._pass("reload")
        self._note("reload")
        self.target.reload()

    can_restart = True

    def rehearse(self, values):
        self._pass("rehearse")
        self.target.rehearse(values)

    def restart(self, rescue):
        self._pass("restart")
        self._note("restart")
        self.target.restart(rescue)

    def by_hand(self, name, value):
        """Change a setting as its owner would."""
        self.target.write(name, value)
        self.target.reload()

    def in_force(self, *names):
        return {name: setting.value for name, setting in self.target.settings(names).items()}

    def written(self, *names):
        return {name: setting.written_value for name, setting in self.target.settings(names).items()}

    def counts(self):
        return Counter(what for what, *_ in self.done)

    def _note(self, what, name=""):
        trial = read_journal(self.journal.path.parent).unfinished[-1]
        self.done.append((what, name, trial.status))

    def _pass(self, what, name=""):
        if self.is_away:
            raise ServerUnreachable("The server is gone.", "Start it again.")
        for key in (what, f"{what} {name}"):
            if key in self.failure:
                raise self.failure.pop(key)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "1", clock=VirtualClock()) as journal:
        yield journal


@pytest.fixture
def server(journal):
    return Witness(journal)


@pytest.fixture
def guard(server, journal):
    catalogue = load_catalogue()
    settings = server.settings(catalogue.settings_needed)
    machine = server.target.machine
    confronted = catalogue.confront(settings, 15, machine)
    capabilities = server.target.capabilities
    return Guard(
        server,
        catalogue=confronted,
        machine=machine,
        journal=journal,
        capabilities=capabilities,
        connections=20,
        active=8,
    )


def change(guard, values=None):
    baseline = guard.catalogue.configuration_of(guard.actuator.settings(guard.catalogue.settings_needed))
    return Change(baseline, baseline.replaced(CANDIDATE if values is None else values))


@pytest.fixture
def restarting(guard):
    guard.catalogue = replace(guard.catalogue, may_restart=True)
    return guard


LARGER = {"shared_buffers": 262144, "jit": False}


def test_what_needs_a_restart_is_tried_by_restarts_and_put_back_by_one(restarting, server, journal):
    with restarting.trial(change(restarting, LARGER), "t1") as trial:
        assert trial.needs_restart
        trial.apply()
        assert server.in_force(*LARGER) == LARGER
        trial.withdraw()
        assert server.in_force(*LARGER) == {"shared_buffers": 16384, "jit": True}
        trial.apply()
    assert server.written(*LARGER) == {"shared_buffers": None, "jit": None}
    assert server.in_force(*LARGER) == {"shared_buffers": 16384, "jit": True}
    assert (server.counts()["restart"], server.counts()["reload"]) == (4, 0)
    assert not journal.state.unfinished


def test_a_server_that_would_not_start_is_found_out_before_anything_is_written(restarting, server):
    server.failure["rehearse"] = ChangeRefused("it would not start", "choose less")
    with pytest.raises(ChangeRefused, match="it would not start"), restarting.trial(change(restarting, LARGER), "t1"):
        pass
    assert server.done == []


def test_a_server_that_did_not_start_is_as_it_was(restarting, server, journal):
    with (
        pytest.raises(ChangeRefused, match="did not start"),
        restarting.trial(change(restarting, LARGER), "t1") as trial,
    ):
        server.target.restart = refuse_once(server.target)
        trial.apply()
    assert server.written(*LARGER) == {"shared_buffers": None, "jit": None}
    assert server.in_force(*LARGER) == {"shared_buffers": 16384, "jit": True}
    assert not journal.state.unfinished


def test_a_server_that_did_not_start_again_under_the_candidate_is_as_it_was(restarting, server, journal):
    with (
        pytest.raises(ChangeRefused, match="did not start"),
        restarting.trial(change(restarting, LARGER), "t1") as trial,
    ):
        trial.apply()
        server.target.restart = refuse_once(server.target)
        trial.renew()
    assert server.written(*LARGER) == {"shared_buffers": None, "jit": None}
    assert server.in_force(*LARGER) == {"shared_buffers": 16384, "jit": True}
    assert not journal.state.unfinished


def refuse_once(target):
    """Return a restart that has to be rescued, as that of a server which does not start."""
    restart = target.restart

    def rescued(rescue):
        target.restart = restart
        for name, text in rescue.items():
            target.restore(name, text)
        restart({})
        raise ChangeRefused("The server did not start with it", "It runs again.")

    return rescued


def test_the_lock_is_taken_again_after_every_restart(server, restarting):
    taken = []

    @contextmanager
    def over_a_restart():
        yield
        taken.append(server.counts()["restart"])

    restarting._over_a_restart = over_a_restart
    with restarting.trial(change(restarting, LARGER), "t1") as trial:
        trial.apply()
        trial.renew()
        trial.confirm()
    assert taken == [1, 2]
    (undone,) = rollback(restarting)
    assert taken == [1, 2, 3]
    assert undone.pending == ()


def test_a_killed_trial_of_a_restart_is_undone_by_a_restart(restarting, server, journal):
    trial = restarting.trial(change(restarting, LARGER), "t1")
    trial.__enter__()
    trial.apply()
    undo_unfinished(server, journal)
    assert server.in_force(*LARGER) == {"shared_buffers": 16384, "jit": True}


def test_a_start_that_may_not_restart_puts_the_file_back_and_leaves_the_rest_to_the_next_restart(
    restarting, server, journal
):
    trial = restarting.trial(change(restarting, LARGER), "t1")
    trial.__enter__()
    trial.apply()
    server.can_restart = False
    (undone,) = undo_unfinished(server, journal)
    assert str(undone).endswith("; in force only when the server is restarted: shared_buffers.")
    assert server.written(*LARGER) == {"shared_buffers": None, "jit": None}
    assert server.in_force(*LARGER) == {"shared_buffers": 262144, "jit": True}
    assert server.target.settings(["shared_buffers"])["shared_buffers"].pending_restart


@pytest.mark.parametrize("values", [{"shared_buffers": 262144}, {"max_connections": 200}])
def test_without_leave_nothing_that_needs_a_restart_is_tried(guard, server, values):
    with pytest.raises(ChangeRefused, match="restart"), guard.trial(change(guard, values), "t1"):
        pass
    assert server.done == []


def test_what_the_application_relies_on_is_not_tried_even_with_leave(restarting, server):
    with (
        pytest.raises(ChangeRefused, match="advice only"),
        restarting.trial(change(restarting, {"max_connections": 200}), "t1"),
    ):
        pass
    assert server.done == []


STOCK = {"work_mem": 4096, "jit": True, "random_page_cost": 4.0}
NOTHING_WRITTEN = {"work_mem": None, "jit": None, "random_page_cost": None}


def test_the_intent_is_on_disk_before_anything_is_written(guard, server):
    with guard.trial(change(guard), "t1") as trial:
        assert server.done == []
        trial.apply()
        assert server.done == [
            ("write", "jit", RecordKind.INTENT),
            ("write", "random_page_cost", RecordKind.INTENT),
            ("write", "work_mem", RecordKind.INTENT),
            ("reload", "", RecordKind.INTENT),
        ]
    (knob, *_) = read_journal(guard.journal.path.parent).trials["t1"].intent.knobs
    assert (knob.name, knob.old_written, knob.old_value, knob.new_value) == ("jit", None, True, False)


def test_a_trial_that_is_not_confirmed_leaves_no_trace(guard, server, journal):
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
        assert server.in_force(*CANDIDATE) == CANDIDATE
    assert server.in_force(*STOCK) == STOCK
    assert server.written(*STOCK) == NOTHING_WRITTEN
    assert journal.state.trials["t1"].status is RecordKind.REVERTED


def test_a_confirmed_trial_stays_in_force(guard, server, journal):
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
        trial.confirm()
    assert server.in_force(*CANDIDATE) == CANDIDATE
    assert journal.state.trials["t1"].status is RecordKind.CONFIRMED


def test_confirming_puts_in_force_what_was_withdrawn(guard, server):
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
        trial.withdraw()
        trial.confirm()
    assert server.in_force(*CANDIDATE) == CANDIDATE


def test_blocks_may_alternate_as_often_as_the_trial_wants(guard, server):
    with guard.trial(change(guard), "t1") as trial:
        for _ in range(5):
            trial.apply()
            assert server.in_force(*CANDIDATE) == CANDIDATE
            assert guard.journal.state.trials["t1"].status is RecordKind.VERIFIED
            trial.withdraw()
            assert server.in_force(*STOCK) == STOCK
            assert guard.journal.state.trials["t1"].status is RecordKind.WITHDRAWN
    assert server.counts() == {"write": 15, "restore": 15, "reload": 10}


class StandIn:
    """Somebody who stands by, and remembers for what."""

    def __init__(self, guard):
        self.guard = guard
        self.calls = []

    def arm(self, knobs, longest_seconds):
        records = [trial.status for trial in self.guard.journal.state.trials.values()]
        self.calls.append(("arm", [(knob.name, knob.new_value) for knob in knobs], records))
        return Terms(("somebody",), "epoch 1", longest_seconds)

    def ensure(self):
        self.calls.append(("ensure",))

    def let_restart(self):
        self.calls.append(("let restart",))

    def remain(self):
        self.calls.append(("remain",))

    def disarm(self):
        self.calls.append(("disarm", self.guard.journal.state.trials["t1"].status))


@pytest.fixture
def watched(guard):
    guard._protection, guard._longest_seconds = StandIn(guard), 60.0
    return guard


def test_somebody_stands_by_before_anything_is_written_and_until_all_is_put_back(watched, server):
    with watched.trial(change(watched), "t1") as trial:
        ((kind, knobs, records),) = watched._protection.calls
        assert (kind, dict(knobs), records) == ("arm", CANDIDATE, [RecordKind.INTENT])
        assert server.counts() == {}
        trial.apply()
        assert watched._protection.calls[1:] == [("ensure",)]
    assert watched._protection.calls[2:] == [("disarm", RecordKind.REVERTED)]
    armed = [decoded(line) for line in watched.journal.path.read_bytes().splitlines()][1]
    assert armed.terms == Terms(("somebody",), "epoch 1", 60.0)


def test_who_does_not_read_the_journal_is_stood_down_before_it_says_confirmed(watched):
    with watched.trial(change(watched), "t1") as trial:
        trial.confirm()
    assert watched._protection.calls[-1] == ("disarm", RecordKind.VERIFIED)
    assert watched.journal.state.trials["t1"].status is RecordKind.CONFIRMED


def test_what_was_undone_before_the_journal_said_confirmed_is_not_confirmed(watched, server):
    """A tuner that was stopped in between: others have ended its session, and put everything back."""
    watched._is_sole = lambda: watched.journal.state.trials["t1"].status is not RecordKind.CONFIRMED
    with pytest.raises(AlreadyRunning), watched.trial(change(watched), "t1") as trial:
        trial.confirm()
    assert server.in_force(*STOCK) == STOCK
    assert watched.journal.state.trials["t1"].status is RecordKind.REVERTED


def test_who_stands_by_goes_on_where_nothing_could_be_put_back(watched, server):
    with pytest.raises(ServerUnreachable), watched.trial(change(watched), "t1") as trial:
        trial.apply()
        server.is_away = True
        trial.withdraw()
    assert "disarm" not in {call[0] for call in watched._protection.calls}
    assert watched.journal.state.unfinished


def test_somebody_else_s_change_in_the_last_moment_survives_too(guard, server):
    """Between the look at all settings and the write of one."""
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
        restore = server.restore

        def interrupted(name, written_value, *, only_if):
            if name == "work_mem":
                server.target.write(name, 32768)
            return restore(name, written_value, only_if=only_if)

        server.restore = interrupted
    assert trial.foreign_changes == {"work_mem": "32768"}


def test_where_nobody_stands_by_nothing_is_written(watched, server):
    def nobody(*_):
        raise TargetError("No watchdog could be started.", "Let this user start another process.")

    watched._protection.arm = nobody
    with pytest.raises(TargetError, match="watchdog"), watched.trial(change(watched), "t1"):
        raise AssertionError("on trial with nobody standing by")
    assert server.counts() == {}
    watched._protection.arm = lambda knobs, longest_seconds: Terms(("somebody",), "", longest_seconds)
    watched._protection.ensure = nobody
    with pytest.raises(TargetError, match="watchdog"), watched.trial(change(watched), "t2") as trial:
        trial.apply()
    assert server.counts() == {}
    assert not watched.journal.state.unfinished


def test_of_trials_inside_of_each_other_the_newest_is_to_be_put_back_first(watched):
    outer = change(watched, {"work_mem": 8192})
    with watched.trial(outer, "t1") as first:
        first.apply()
        inner = Change(outer.after, outer.after.replaced({"work_mem": 16384}))
        with watched.trial(inner, "t2"):
            assert watched._protection.calls[-1][1] == [("work_mem", 16384), ("work_mem", 8192)]
        assert watched._protection.calls[-1][1] == [("work_mem", 8192)]


def test_applying_twice_is_applying_once_and_so_is_withdrawing(guard, server):
    with guard.trial(change(guard), "t1") as trial:
        trial.withdraw()
        trial.apply()
        trial.apply()
        trial.withdraw()
        trial.withdraw()
    assert server.counts() == {"write": 3, "restore": 3, "reload": 2}


def test_what_stood_in_the_file_before_is_put_back_as_it_stood_there(guard, server):
    server.by_hand("work_mem", "8192")
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
    assert server.written("work_mem") == {"work_mem": "8192"}
    assert server.in_force("work_mem") == {"work_mem": 8192}


def test_knobs_of_our_own_side_are_reviewed_and_not_written(guard, server):
    with guard.trial(change(guard, {"client.concurrency": 8}), "t1") as trial:
        trial.apply()
        trial.confirm()
    assert server.done == []
    with pytest.raises(ChangeRefused, match=r"client\.concurrency = 0"):
        guard.review(Configuration({"client.concurrency": 0}))


def test_what_is_in_force_may_stand_in_the_configuration_though_it_is_no_knob(guard, server):
    with guard.trial(change(guard, {"jit": False, "block_size": 8192, "max_connections": 100}), "t1") as trial:
        trial.apply()
    assert server.counts() == {"write": 1, "restore": 1, "reload": 2}


def test_many_configurations_are_reviewed_against_one_reading(guard, server):
    circumstances = guard.circumstances()
    server.is_away = True
    review({"work_mem": 16384}, circumstances)
    with pytest.raises(ChangeRefused):
        review({"work_mem": 1}, circumstances)


@pytest.mark.parametrize(
    "values", [{"fsync": False}, {"work_mem": 1}, {"shared_buffers": 32768}, {"work_mem": 1048576}]
)
def test_a_change_that_is_refused_leaves_no_trace_not_even_in_the_journal(guard, server, journal, values):
    with pytest.raises(ChangeRefused), guard.trial(change(guard, {**CANDIDATE, **values}), "t1"):
        pass
    assert server.done == []
    assert journal.path.read_bytes() == b""


def test_a_full_disk_means_that_nothing_is_changed(guard, server, journal, monkeypatch):
    def full(_file, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(JournalError, match="No space left on device"), guard.trial(change(guard), "t1") as trial:
        trial.apply()
    assert server.done == []
    assert server.written(*STOCK) == NOTHING_WRITTEN


def test_a_disk_that_fills_up_during_the_trial_does_not_keep_us_from_putting_back(
    guard, server, journal, monkeypatch
):
    def full(_file, _data):
        raise OSError(28, "No space left on device")

    with pytest.raises(JournalError), guard.trial(change(guard), "t1") as trial:
        monkeypatch.setattr("os.write", full)
        trial.apply()
    assert server.in_force(*STOCK) == STOCK
    monkeypatch.undo()
    assert undo_unfinished(server, journal)[0].restored == {}


@pytest.mark.parametrize("name", CANDIDATE)
def test_when_the_server_refuses_one_write_the_ones_before_are_undone(guard, server, name):
    server.failure[f"write {name}"] = ChangeRefused("no", "never")
    with pytest.raises(ChangeRefused, match="no"), guard.trial(change(guard), "t1") as trial:
        trial.apply()
    assert server.written(*STOCK) == NOTHING_WRITTEN
    assert server.in_force(*STOCK) == STOCK


def test_after_a_failed_apply_the_trial_may_be_tried_again(guard, server):
    with guard.trial(change(guard), "t1") as trial:
        server.failure["reload"] = ServerUnreachable("gone", "start it")
        with pytest.raises(ServerUnreachable):
            trial.apply()
        assert server.written(*STOCK) == NOTHING_WRITTEN
        trial.apply()
        assert server.in_force(*CANDIDATE) == CANDIDATE


def test_what_could_not_be_put_back_at_once_is_put_back_before_the_trial_is_tried_again(guard, server):
    def go_away():
        server.is_away = True
        raise ServerUnreachable("gone", "start it")

    with guard.trial(change(guard), "t1") as trial:
        reload, server.reload = server.reload, go_away
        with pytest.raises(ServerUnreachable) as raised:
            trial.apply()
        assert "could not be put back yet" in raised.value.__notes__[0]
        server.is_away, server.reload = False, reload
        assert server.written("jit") == {"jit": "off"}
        trial.apply()
        assert server.in_force(*CANDIDATE) == CANDIDATE
    assert server.written(*STOCK) == NOTHING_WRITTEN


def test_a_value_that_a_fresh_session_does_not_have_is_named_with_who_decides(guard, server):
    settings = server.settings

    def overridden(names):
        return {
            name: replace(setting, value=5120, source="user") if name == "work_mem" else setting
            for name, setting in settings(names).items()
        }

    with guard.trial(change(guard), "t1") as trial:
        server.settings = overridden
        with pytest.raises(
            ChangeRefused, match="work_mem was written as 16MB, but a new session has 5MB: ALTER ROLE wins"
        ):
            trial.apply()
        assert server.written(*STOCK) == NOTHING_WRITTEN


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit, RuntimeError])
@pytest.mark.parametrize("moment", ["write random_page_cost", "reload", "inside"])
def test_whatever_ends_the_trial_everything_is_put_back(guard, server, journal, interruption, moment):
    server.failure[moment] = interruption()
    with pytest.raises(interruption), guard.trial(change(guard), "t1") as trial:
        trial.apply()
        raise server.failure.pop("inside")
    assert server.in_force(*STOCK) == STOCK
    assert server.written(*STOCK) == NOTHING_WRITTEN
    assert journal.state.trials["t1"].status is RecordKind.REVERTED


def test_a_second_ctrl_c_does_not_break_the_putting_back(guard, server, monkeypatch):
    restore = server.restore

    def interrupted(name, written_value, *, only_if):
        signal.raise_signal(signal.SIGINT)
        return restore(name, written_value, only_if=only_if)

    monkeypatch.setattr(server, "restore", interrupted)
    with pytest.raises(KeyboardInterrupt), guard.trial(change(guard), "t1") as trial:
        trial.apply()
        signal.raise_signal(signal.SIGINT)
    assert server.in_force(*STOCK) == STOCK
    assert server.counts()["restore"] == 3


def test_somebody_elses_change_survives_and_is_reported(guard, server, journal):
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.by_hand("work_mem", 65536)
        trial.withdraw()
        assert trial.foreign_changes == {"work_mem": "65536"}
        assert server.in_force(*STOCK) == {**STOCK, "work_mem": 65536}
        with pytest.raises(ChangeRefused, match=r"work_mem was changed by somebody else.* says 65536"):
            trial.apply()
        assert server.in_force(*STOCK) == {**STOCK, "work_mem": 65536}
    assert server.in_force(*STOCK) == {**STOCK, "work_mem": 65536}
    assert journal.state.unfinished == ()


def test_somebody_elses_reset_survives_too(guard, server):
    server.by_hand("work_mem", 8192)
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.target.restore("work_mem", None)
    assert trial.foreign_changes == {"work_mem": "nothing"}
    assert server.written("work_mem") == {"work_mem": None}


def test_somebody_elses_change_is_not_confirmed_as_ours(guard, server):
    with guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.by_hand("jit", True)
        trial.confirm()
    assert trial.foreign_changes == {"jit": "on"}
    rollback(guard)
    assert server.written(*STOCK) == {**NOTHING_WRITTEN, "jit": "on"}


def test_a_baseline_that_is_not_in_force_is_refused(guard, server):
    stale = change(guard)
    server.by_hand("work_mem", 8192)
    with (
        pytest.raises(ChangeRefused, match="work_mem is 8MB on the server, and 4MB in the baseline"),
        guard.trial(stale, "t1"),
    ):
        pass


def test_a_server_that_is_away_at_the_end_is_put_right_at_the_next_start(guard, server, journal):
    with pytest.raises(ValueError, match="the cause") as raised, guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.is_away = True
        raise ValueError("the cause")
    assert "the next start undoes it" in raised.value.__notes__[0]
    server.is_away = False
    assert server.in_force(*CANDIDATE) == CANDIDATE
    with pytest.raises(ChangeRefused, match=r"Trial t1 of .* is not finished"), guard.trial(change(guard), "t2"):
        pass
    (undone,) = undo_unfinished(server, journal)
    assert set(undone.restored) == set(CANDIDATE)
    assert str(undone) == (
        "Undid trial t1 of 2026-01-01T00:00:00+00:00: jit reset, random_page_cost reset, work_mem reset."
    )
    assert server.in_force(*STOCK) == STOCK
    assert undo_unfinished(server, journal) == ()


def test_a_server_that_is_away_at_the_end_is_an_error_where_there_is_no_other(guard, server):
    with pytest.raises(ServerUnreachable), guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.is_away = True


@pytest.mark.parametrize(
    "error", [NotNow("Changes are paused.", "Resume."), ChangeRefused("Somebody else's.", "Look.")], ids=repr
)
def test_nobody_goes_on_over_what_could_not_be_put_back(guard, server, journal, error):
    """A campaign goes on after these two, taking everything for as it was."""
    with pytest.raises(ServerUnreachable) as raised, guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.is_away = True
        raise error
    assert raised.value.__context__ is error
    assert journal.state.unfinished


def test_ctrl_c_waits_until_the_undoing_is_over(guard, server, journal, monkeypatch):
    with pytest.raises(ServerUnreachable), guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.is_away = True
    server.is_away = False
    restore = server.restore

    def interrupted(name, written_value, *, only_if):
        signal.raise_signal(signal.SIGINT)
        return restore(name, written_value, only_if=only_if)

    monkeypatch.setattr(server, "restore", interrupted)
    with pytest.raises(KeyboardInterrupt):
        undo_unfinished(server, journal)
    assert server.in_force(*STOCK) == STOCK
    assert journal.state.unfinished == ()


@pytest.mark.parametrize("restored", [0, 1, 2, 3])
def test_undoing_goes_on_where_an_undoing_was_cut_short(guard, server, journal, restored):
    """Killed after some were restored, before the reload: the rest is restored, and all of it put in force."""
    with pytest.raises(ServerUnreachable), guard.trial(change(guard), "t1") as trial:
        trial.apply()
        for name in sorted(CANDIDATE)[:restored]:
            server.target.restore(name, None)
        server.is_away = True
    server.is_away = False
    (undone,) = undo_unfinished(server, journal)
    assert set(undone.restored) == set(sorted(CANDIDATE)[restored:])
    assert undone.foreign == {}
    assert server.in_force(*STOCK) == STOCK


def test_a_setting_that_is_gone_is_said_and_not_tried(guard, server, journal):
    with pytest.raises(ServerUnreachable), guard.trial(change(guard), "t1") as trial:
        trial.apply()
        server.is_away = True
    server.is_away = False
    settings = server.settings
    server.settings = lambda names: {k: v for k, v in settings(names).items() if k != "jit"}
    (undone,) = undo_unfinished(server, journal)
    assert undone.foreign == {"jit": "gone from this server"}
    assert "left as somebody else set it: jit = gone from this server" in str(undone)


def test_a_role_that_cannot_see_what_was_written_neither_tries_nor_undoes(guard, server, journal):
    guard.capabilities = blind = replace(guard.capabilities, settings_visible=False)
    with (
        pytest.raises(ChangeRefused, match=r"cannot see what postgresql\.auto\.conf says"),
        guard.trial(change(guard), "t1"),
    ):
        pass
    assert undo_unfinished(server, journal, capabilities=blind) == ()
    guard.journal.append(RecordKind.INTENT, "t2")
    with pytest.raises(PrivilegeMissing, match="Trial t2 is unfinished"):
        undo_unfinished(server, journal, capabilities=blind)


def confirmed(guard, trial_id, values):
    with guard.trial(change(guard, values), trial_id) as trial:
        trial.confirm()


@pytest.mark.parametrize(
    ("to", "undone", "work_mem", "jit"),
    [
        (None, ["t3"], 16384, False),
        ("t3", ["t3"], 16384, False),
        ("t2", ["t3", "t2"], 8192, True),
        ("t1", ["t3", "t2", "t1"], 4096, True),
        ("baseline", ["t3", "t2", "t1"], 4096, True),
    ],
)
def test_rolling_back_undoes_the_named_trial_and_all_after_it(guard, server, to, undone, work_mem, jit):
    confirmed(guard, "t1", {"work_mem": 8192})
    confirmed(guard, "t2", {"work_mem": 16384, "jit": False})
    confirmed(guard, "t3", {"work_mem": 32768})
    assert [one.trial_id for one in rollback(guard, to=to)] == undone
    assert server.in_force("work_mem", "jit") == {"work_mem": work_mem, "jit": jit}


def test_a_rollback_leaves_what_somebody_else_changed_since(guard, server):
    confirmed(guard, "t1", {"work_mem": 8192, "jit": False})
    server.by_hand("work_mem", 65536)
    (undone,) = rollback(guard)
    assert undone.foreign == {"work_mem": "65536"}
    assert server.in_force("work_mem", "jit") == {"work_mem": 65536, "jit": True}


def test_a_rollback_that_is_cut_short_is_completed_at_the_next_start(guard, server, journal):
    confirmed(guard, "t1", {"work_mem": 8192})
    confirmed(guard, "t2", {"work_mem": 16384, "jit": False})
    server.failure["restore work_mem"] = ServerUnreachable("gone", "start it")
    with pytest.raises(ServerUnreachable):
        rollback(guard, to="baseline")
    assert [one.trial_id for one in undo_unfinished(server, journal)] == ["t2", "t1"]
    assert server.in_force("work_mem", "jit") == {"work_mem": 4096, "jit": True}


def test_a_rollback_that_is_cut_while_it_reopens_can_be_repeated(guard, server, journal, monkeypatch):
    confirmed(guard, "t1", {"work_mem": 8192})
    confirmed(guard, "t2", {"work_mem": 16384})
    append = Journal.append

    def full_disk(journal, kind, *rest):
        if any(kind is RecordKind.REOPENED for _ in journal.state.unfinished):
            raise JournalError("no space left", "make room")
        append(journal, kind, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full_disk)
        with pytest.raises(JournalError):
            rollback(guard, to="baseline")
    assert [one.trial_id for one in undo_unfinished(server, journal)] == ["t2"]
    assert server.in_force("work_mem") == {"work_mem": 8192}
    assert [one.trial_id for one in rollback(guard, to="baseline")] == ["t1"]
    assert server.written("work_mem") == {"work_mem": None}


def test_a_rollback_to_a_trial_that_is_not_in_force_is_wrong_usage(guard):
    assert rollback(guard) == ()
    confirmed(guard, "t1", {"jit": False})
    with pytest.raises(UsageError, match="No trial t9 is in force; those in force are: t1"):
        rollback(guard, to="t9")


def test_putting_nothing_back_does_not_touch_the_server(server):
    server.is_away = True
    assert put_back(server, ()).restored == {}
