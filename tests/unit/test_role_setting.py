"""Settings of roles: their keys, and a server that is down while one is on trial."""

from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.safety.at_rest import undo_at_rest
from ml_postgres_optimization.safety.journal import Journal, KnobChange, RecordKind
from ml_postgres_optimization.target.postgres.queries import alter_setting

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(NAMES, NAMES)
def test_whatever_roles_and_databases_are_called_a_key_means_one_setting(role, database):
    setting = RoleSetting("lock_timeout", role, database)
    assert RoleSetting.of(setting.key) == setting
    statement = alter_setting(setting.key, None).as_string()
    assert statement.count('"') % 2 == 0
    assert statement.startswith('ALTER ROLE "')


def test_no_setting_of_the_server_is_taken_for_one_of_a_role():
    for name in ("lock_timeout", "client.concurrency", 'lock_timeout@"a"', "lock_timeout@a.b", 'x@"a"b"."c"'):
        assert RoleSetting.of(name) is None, name


def test_what_a_role_was_given_stays_unfinished_while_its_server_is_down(tmp_path):
    file = tmp_path / "postgresql.auto.conf"
    file.write_text("work_mem = '8192'\n")
    of_server = KnobChange("work_mem", "6MB", 6144, 8192)
    of_role = KnobChange(RoleSetting("lock_timeout", "app", "shop").key, None, 0, 2000)
    with Journal(tmp_path / "journal") as journal:
        journal.append(RecordKind.INTENT, "t1", [of_role, of_server])
        (undone,) = undo_at_rest(tmp_path, journal)
        assert undone.restored == {"work_mem": "6MB"}
        assert undone.awaiting == (of_role.name,)
        assert str(undone).endswith("put back when the server runs: lock_timeout of role app in database shop.")
        assert "work_mem = '6MB'" in file.read_text()
        (left,) = journal.state.unfinished
        assert left.intent.knobs == (of_role, of_server)
    with Journal(tmp_path / "journal") as journal:
        assert journal.state.unfinished == (left,)
