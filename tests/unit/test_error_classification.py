"""Every row of the table of SQLSTATEs has its class."""

import pytest

from ml_postgres_optimization.retry.classification import ErrorClass, error_class

TABLE = {
    ErrorClass.SERIALIZATION: ["40001"],
    ErrorClass.DEADLOCK: ["40P01"],
    ErrorClass.TIMEOUT: ["55P03", "57014", "25P03", "25P04", "57P05"],
    ErrorClass.CONNECTION: [
        *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),
        *("57P01", "57P02", "57P03", "57P04", "25006", "40003", None, ""),
    ],
    ErrorClass.RESOURCES: ["53000", "53100", "53200", "53300", "53400"],
    ErrorClass.INTERNAL: ["58000", "58030", "58P01", "XX000", "XX001", "XX002"],
    ErrorClass.OTHER: [
        *("23505", "23P01", "23503", "21000", "22012", "42601", "42P01", "42501"),
        *("25P02", "0A000", "26000", "28000", "28P01", "3D000", "40002", "55000", "54000", "P0001"),
    ],
}


@pytest.mark.parametrize(("sqlstate", "expected"), [(code, name) for name, codes in TABLE.items() for code in codes])
def test_a_sqlstate_has_the_class_of_its_lever(sqlstate, expected):
    assert error_class(sqlstate) is expected


def test_every_class_stands_in_the_table():
    assert set(TABLE) == set(ErrorClass)


@pytest.mark.parametrize("strange", ["4", "40P0", "zzzzz", "４０００１", "40001 "])
def test_what_is_no_sqlstate_is_the_applications_own(strange):
    assert error_class(strange) is ErrorClass.OTHER
