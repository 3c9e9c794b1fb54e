"""The rules of the house that no linter knows: sizes, docstrings, names."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ml_postgres_optimization"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(PACKAGE.rglob("*.sql"))
BANNED_IN_NAMES = re.compile(
    r"(^|_)(manager|helper|helpers|utils|util|common|base|smart|advanced|quantum|dimensional)(_|$)"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_function_body_has_at_most_30_lines(path):
    long = {function.name: body_lines(function) for function in functions(path) if body_lines(function) > 30}
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_function_takes_at_most_5_positional_parameters(path):
    def positional(function):
        names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        return [name for name in names if name not in {"self", "cls"}]

    assert not {
        function.name: len(positional(function)) for function in functions(path) if len(positional(function)) > 5
    }


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_file_has_at_most_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_a_folder_has_at_most_8_modules():
    for folder in {path.parent for path in MODULES}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 8, f"{relative(folder)}: {sorted(path.name for path in modules)}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=relative)
def test_an_init_only_re_exports(path):
    for node in ast.parse(path.read_text()).body:
        allowed = isinstance(node, ast.ImportFrom | ast.Expr) or (
            isinstance(node, ast.Assign) and node.targets[0].id in {"__all__", "__version__"}  # type: ignore[attr-defined]
        )
        assert allowed, f"{relative(path)}:{node.lineno} does more than re-export"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_not_named_like_one_of_the_standard_library(path):
    name = path.parent.name if path.name == "__init__.py" else path.stem
    assert name not in sys.stdlib_module_names
    assert not BANNED_IN_NAMES.search(name)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_names_are_those_of_the_field(path):
    tree = ast.parse(path.read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, Function | ast.ClassDef)}
    snake = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in names}
    assert not {name for name in snake if BANNED_IN_NAMES.search(name)}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_public_things_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module"
    for node in public_things(tree):
        assert ast.get_docstring(node), f"{relative(path)}:{node.lineno} {node.name}"


def public_things(parent: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    """Yield public functions and classes, and the public members of these."""
    for node in parent.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if not (isinstance(node, Function) and any("overload" in ast.dump(mark) for mark in node.decorator_list)):
                yield node
            if isinstance(node, ast.ClassDef):
                yield from public_things(node)


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_sql_is_ascii(path):
    """Comments and texts of functions are stored in the database, whose encoding may lack anything else."""
    assert path.read_bytes().isascii()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_the_environment_is_not_read_at_import(path):
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, Function | ast.ClassDef):
            names = {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(node)}
            assert not names & {"environ", "getenv"}, f"{relative(path)}:{node.lineno}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "protocols"], ids=relative)
def test_nothing_is_passed_over_in_silence(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f"{relative(path)}:{node.lineno}"
            assert node.type is not None, f"{relative(path)}:{node.lineno}: a bare except"


ONLY_THESE_TOUCH_A_SERVER = {"target", "workload"}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_target_and_workload_touch_postgresql_or_the_host(path):
    if path.relative_to(PACKAGE).parts[0] in ONLY_THESE_TOUCH_A_SERVER:
        return
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & {"psycopg", "psycopg_pool", "asyncpg", "psutil"}


CHANGES_A_SERVER = {"write", "restore", "reload"}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_the_guard_changes_a_tuned_system(path):
    if relative(path).startswith(("ml_postgres_optimization/safety", "ml_postgres_optimization/target")):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES_A_SERVER:
            owner = ast.unparse(node.func.value)
            assert not re.search(r"target|actuator|server", owner), f"{relative(path)}:{node.lineno} {owner}"
