"""A workload as a folder: names, weights, and everything that can be wrong with files."""

import os

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script import read_workload


@pytest.fixture
def write(tmp_path):
    def write(**files):
        for name, content in files.items():
            path = tmp_path / f"{name.replace('__', '@')}.sql"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def refused(folder, what, next_step=""):
    with pytest.raises(UsageError) as caught:
        read_workload(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2, lines
    assert what in lines[0]
    assert next_step in lines[1]


def test_every_file_is_a_script_with_its_weight(write):
    folder = write(b="SELECT 2;", a__3="SELECT 1;", c__0="SELECT", setup="CREATE TABLE t (); VACUUM t;")
    (folder / "notes.txt").write_text("not ours")
    (folder / ".hidden.sql").write_text("'")
    (folder / "below").mkdir()
    (folder / "below" / "d.sql").write_text("'")
    workload = read_workload(folder)
    assert [(script.name, script.weight) for script in workload.scripts] == [("a", 3), ("b", 1)]
    assert workload.path == folder
    assert workload.setup.path == folder / "setup.sql"
    assert workload.setup.statements == ("CREATE TABLE t ()", "VACUUM t")


def test_a_folder_needs_no_setup(write):
    assert read_workload(write(a="SELECT 1;")).setup is None


def test_names_of_variables_can_be_given(write):
    folder = write(a="SELECT :rows;")
    refused(folder, "a.sql, line 1, column 8: the variable :rows is not set before")
    assert len(read_workload(folder, variables=["rows"]).scripts) == 1


def test_a_byte_order_mark_is_no_part_of_the_text(write):
    (script,) = read_workload(write(a=b"\xef\xbb\xbfSELECT 1;")).scripts
    assert script.commands[0].text({}) == "SELECT 1"


def test_a_name_may_have_more_than_one_mark(write):
    (script,) = read_workload(write(me__home__2="SELECT 1;")).scripts
    assert (script.name, script.weight) == ("me@home", 2)


def test_folders_that_cannot_be_read(tmp_path, write):
    refused(tmp_path / "nosuch", "cannot be read: no such file or directory", "Name a folder with files *.sql in it.")
    refused(write(a="SELECT 1;") / "a.sql", "cannot be read: not a directory")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "cannot be read: too many levels of symbolic links")
    refused(tmp_path / "nul\0", "cannot be read")


def test_a_folder_without_scripts(tmp_path, write):
    refused(tmp_path, "there is no script in")
    refused(write(setup="SELECT 1;"), "there is no script in", "Put files *.sql in it")


def test_weights(write):
    refused(write(a__0="SELECT 1;"), "the weight of every script in", "NAME@WEIGHT.sql")


@pytest.mark.parametrize("weight", ["x", "-1", "1.5", "", "99999999999", "2147483648", "³"])
def test_a_weight_that_is_none(write, weight):
    refused(
        write(**{f"a__{weight}": "SELECT 1;"}), f"the weight '{weight}' of the file a@{weight}.sql is not allowed"
    )


def test_the_spelling_of_pgbench(tmp_path):
    (tmp_path / "orders.sql@3").write_text("SELECT 1;")
    refused(tmp_path, "orders.sql@3 is spelt as on pgbench's command line", "Name it orders@3.sql.")


def test_two_files_of_one_name(write):
    refused(write(a="SELECT 1;", a__2="SELECT 2;"), "a.sql and a@2.sql in", "Keep one of them")


def test_a_file_without_a_name(write):
    refused(write(__3="SELECT 1;"), "the name of the file @3.sql is none for a script")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\u202eb"])
def test_hostile_names_are_shown_safely(tmp_path, name):
    (tmp_path / f"{name}.sql").write_text("SELECT 1;")
    refused(tmp_path, ascii(name)[1:-1], "Rename it")


def test_a_name_that_is_no_text(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff.sql")).write_text("SELECT 1;")
    refused(tmp_path, r"a\udcff.sql", "Rename it")


def test_contents_that_are_no_script(write):
    refused(write(a=""), "a.sql: there is no command in it")


def test_an_error_in_a_script_names_the_file_as_it_is_called(write):
    refused(write(a__2="SELECT 1;\nSELECT 'x"), "a@2.sql, line 2, column 8: the quote ' is not closed")


def test_a_file_that_is_not_utf_8(write):
    refused(write(a=b"SELECT 1;\nSELECT '\xe9';"), "a.sql, line 2: byte 18 is not UTF-8", "Save the file in UTF-8.")


def test_a_file_that_is_too_large(write):
    refused(write(a="SELECT 1;" + " " * 1_000_000), "a.sql has more than 1000000 bytes")


def test_a_setup_is_checked_too(write):
    refused(write(a="SELECT 1;", setup=""), "setup.sql: there is no statement in it")
    refused(write(a="SELECT 1;", setup="SELECT '"), "setup.sql, line 1, column 8")


def test_what_is_called_like_a_script_and_is_none(tmp_path, write):
    write(b="SELECT 1;")
    path = tmp_path / "a.sql"
    path.mkdir()
    refused(tmp_path, "a.sql is no file")
    path.rmdir()
    os.mkfifo(path)
    refused(tmp_path, "a.sql is no file")
    path.unlink()
    path.symlink_to(path)
    refused(tmp_path, "a.sql cannot be read: too many levels of symbolic links")
    path.unlink()
    path.symlink_to(tmp_path / "nosuch")
    refused(tmp_path, "a.sql cannot be read: no such file or directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(write):
    folder = write(a="SELECT 1;")
    (folder / "a.sql").chmod(0)
    refused(folder, "a.sql cannot be read: permission denied")


def test_too_many_scripts(write):
    refused(write(**{f"s{number}": "" for number in range(257)}), "there are 257 scripts in", "Keep at most 256.")
