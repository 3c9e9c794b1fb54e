"""Whatever is given to the program, it says in two lines what is wrong; 5,000 cases: benchmarks/fuzzing.py."""

import pytest
from fuzzed_input import KINDS, SECRET, Case
from fuzzing import ERRORS, Sandbox, complaint_about_file, started, whole_files, wrong_with

CASES = 16


@pytest.fixture
def sandbox(database, tmp_path):
    return Sandbox.at(tmp_path / "sandbox", database)


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_ends_in_a_traceback_or_tells_a_password(sandbox, kind):
    complaints = {number: sandbox.complaint(kind, number) for number in range(CASES)}
    assert not {number: complaint for number, complaint in complaints.items() if complaint}


@pytest.mark.parametrize(
    ("words", "environ", "code"),
    [
        (("status",), {"PGOPTIONS": "\udcff"}, 3),
        (("status",), {"GENESIS_HOME": "~nobody-of-that-name"}, 2),
        (("status", "--dsn", f"postgresql://a/b:{SECRET}@127.0.0.1:1/x?hostaddr=127.0.0.1"), {}, 3),
        (("status", "--dsn", f"host=/nowhere require_auth=x;password={SECRET}"), {}, 2),
        (("status", f"postgresql://u:{SECRET}@h/d"), {}, 2),
        (("test", "--duration", f"host=h password='{SECRET}'"), {}, 2),
    ],
)
def test_what_was_found_wrong_once(sandbox, words, environ, code):
    assert sandbox.complaint_about(Case(words, frozenset({code}), environ)) is None


def test_a_workload_of_a_name_that_is_too_long_is_told(sandbox):
    words = ("tune", "--workload", "x" * 300, "--dry-run")
    assert sandbox.complaint_about(Case(words, frozenset({2}), on_server=True)) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_files(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("kind", ERRORS)
def test_no_file_ends_in_a_traceback(whole, tmp_path, kind):
    complaints = {number: complaint_about_file(kind, number, tmp_path, whole[kind]) for number in range(2 * CASES)}
    assert not {number: complaint for number, complaint in complaints.items() if complaint}


@pytest.mark.parametrize(
    ("code", "out", "err", "complaint"),
    [
        (3, "", "one\ntwo\n", None),
        (1, "", "one\ntwo\n", "exit code 1"),
        ("KeyError: 'x'", "", "one\ntwo\n", "exit code KeyError"),
        (3, "", "one\n", "not two lines"),
        (3, "", "Traceback (most recent call last):\n", "a traceback"),
        (3, SECRET, "one\ntwo\n", "the password is told"),
        (3, "\x1b[2J", "one\ntwo\n", "plays with the terminal"),
    ],
)
def test_what_is_wrong_is_seen(code, out, err, complaint):
    seen = wrong_with(Case(("status",), frozenset({2, 3})), code, out, err)
    assert seen is None if complaint is None else complaint in seen


def test_a_password_in_a_file_is_seen(sandbox, monkeypatch):
    monkeypatch.setattr("fuzzing.started", lambda *_, **__: (3, "", "one\ntwo\n"))
    case = Case(("status",), frozenset({3}), files={"models/note": SECRET.encode()})
    assert "the password stands in" in sandbox.complaint_about(case)


def test_help_is_no_error():
    code, out, err = started(["--help"])
    assert (code, err) == (0, "") and "optimize" in out
