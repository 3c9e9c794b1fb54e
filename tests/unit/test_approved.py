"""What an approval is good for: the change that was shown, and nothing else."""

from types import SimpleNamespace

import pytest

from ml_postgres_optimization.interfaces.commands.online.optimization import _approved
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.safety.consent import Answer, Approvals
from ml_postgres_optimization.telemetry import VirtualClock

BEFORE = Configuration({"work_mem": 4096, "jit": True})
WITHOUT_JIT = BEFORE.replaced({"jit": False})


@pytest.fixture
def session(tmp_path):
    approvals = Approvals(tmp_path, VirtualClock())
    approvals.ask(BEFORE, WITHOUT_JIT, "jit costs more than it saves")
    approvals.answer(WITHOUT_JIT.id, Answer.APPROVED, "maria")
    return SimpleNamespace(settings=SimpleNamespace(action="approve"), approvals=approvals)


def test_what_was_shown_is_drafted_and_the_word_holds(session):
    (draft,) = _approved(session, BEFORE)
    assert draft.values(BEFORE) == {"jit": False}
    assert "approved by maria" in draft.reason
    assert session.approvals.answer_of(WITHOUT_JIT) is Answer.APPROVED


def test_what_the_owner_has_set_meanwhile_stays_and_the_word_is_void(session):
    incumbent = BEFORE.replaced({"work_mem": 65536})
    (draft,) = _approved(session, incumbent)
    assert incumbent.replaced(draft.values(incumbent)) == incumbent.replaced({"jit": False})
    assert session.approvals.all() == []


@pytest.mark.parametrize("incumbent", [WITHOUT_JIT, Configuration({"work_mem": 4096})])
def test_what_is_in_force_already_or_not_ours_any_more_is_not_drafted(session, incumbent):
    assert _approved(session, incumbent) == ()


def test_without_action_approve_no_approval_is_looked_at(session):
    session.settings.action = "auto"
    assert _approved(session, BEFORE) == ()
