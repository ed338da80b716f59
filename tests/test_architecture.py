"""The rules of the house, read off the source: what import-linter does not know."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("store", "policies", "agent", "service")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 300
MAX_FUNCTION_LINES = 50
IMPURE = {
    "os",
    "time",
    "random",
    "logging",
    "io",
    "pathlib",
    "secrets",
    "datetime",
    "subprocess",
    "socket",
    "threading",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def under(package: str) -> list[Path]:
    return [path for path in MODULES if name(path).startswith(f"{package}/")]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every name imported anywhere in the module, whole ("a.b" and, of `from a import b`, both "a" and "a.b")."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def importers(module: str) -> set[str]:
    """The files that import `module` or anything in it."""
    return {
        name(path)
        for path in MODULES
        if any(found == module or found.startswith(f"{module}.") for found, _ in imports(path))
    }


def places(paths: list[Path], is_bad: Callable[[ast.AST], bool]) -> list[str]:
    """Where a node is bad, as file:line."""
    return [f"{name(path)}:{node.lineno}" for path in paths for node in ast.walk(tree(path)) if is_bad(node)]


def calls(node: ast.AST, *names: str) -> bool:
    """Whether the node calls one of these, as written: "eval", "torch.load"."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


# ── what is banned ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_modules_under_test_are_all_there() -> None:
    assert len(MODULES) > 60
    assert {name(path).split("/")[0] for path in MODULES} == set(PACKAGES)


def test_nothing_is_asserted_outside_tests() -> None:
    assert places(MODULES, lambda node: isinstance(node, ast.Assert)) == []


def test_nothing_is_evaluated_or_executed() -> None:
    assert places(MODULES, lambda node: calls(node, "eval", "exec", "builtins.eval", "builtins.exec")) == []


def test_nothing_is_unpickled() -> None:
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = [f"{name(path)}:{line}" for path in MODULES for module, line in imports(path) if module in banned]
    assert found == []
    assert places(MODULES, lambda node: calls(node, "torch.load", "load_pickle", "np.load", "numpy.load")) == []


def test_no_command_goes_through_a_shell() -> None:
    def is_shell(node: ast.AST) -> bool:
        return isinstance(node, ast.keyword) and node.arg == "shell"

    assert places(MODULES, is_shell) == []
    assert places(MODULES, lambda node: calls(node, "os.system", "os.popen", "subprocess.getoutput")) == []


def test_no_model_code_from_a_model_directory_is_trusted() -> None:
    def is_trusting(node: ast.AST) -> bool:
        return isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False"

    assert places(MODULES, is_trusting) == []


def test_nothing_catches_everything_without_naming_it() -> None:
    assert places(MODULES, lambda node: isinstance(node, ast.ExceptHandler) and node.type is None) == []


# ── shape ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_module_says_what_it_is() -> None:
    assert [name(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_functions_are_short() -> None:
    def is_long(node: ast.AST) -> bool:
        return isinstance(node, Function) and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES

    assert places(MODULES, is_long) == []


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_package_files_hold_no_imports_of_their_own_package_but_for_the_entry_points() -> None:
    eager = {"agent/__init__.py", "store/__init__.py", "policies/__init__.py", "service/__init__.py"}
    assert [name(path) for path in MODULES if name(path) in eager and list(imports(path))] == []


# ── who imports what ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_policies_know_no_files_clock_randomness_environment_or_log() -> None:
    found = [f"{name(path)}: {module}" for path in under("policies") for module, _ in imports(path)]
    impure = [line for line in found if line.split(": ")[1].split(".")[0] in IMPURE | {"structlog"}]
    assert impure == []


def test_only_the_engine_of_the_policies_reads_the_rules_that_ship() -> None:
    readers = {file for file in importers("importlib") if file.startswith("policies/")}
    assert readers == {"policies/engine.py"}
    assert places(under("policies"), lambda node: calls(node, "open", "print", "input")) == []


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("cedarpy", {"policies/engine.py"}),
        ("apscheduler", {"service/scheduler.py"}),
        ("faiss", {"store/vectors.py"}),
        ("uvicorn", {"service/sockets.py", "service/connections.py"}),
        ("http", {"service/client.py"}),
        ("httpx", set()),
    ],
)
def test_a_library_stays_in_its_one_module(library: str, home: set[str]) -> None:
    assert importers(library) == home


@pytest.mark.parametrize(
    ("library", "package"),
    [("torch", "agent"), ("transformers", "agent"), ("peft", "agent"), ("trl", "agent"), ("sqlite_utils", "store")],
)
def test_a_library_stays_in_its_one_package(library: str, package: str) -> None:
    assert {file.split("/")[0] for file in importers(library)} == {package}


def test_store_and_policies_do_not_log_or_print() -> None:
    quiet = under("store") + under("policies")
    logging = importers("logging") | importers("structlog") | importers("warnings")
    assert logging & {name(path) for path in quiet} == set()
    assert places(quiet, lambda node: calls(node, "print", "sys.stdout.write", "sys.stderr.write")) == []


def test_logging_is_set_up_in_one_place() -> None:
    configures = places(MODULES, lambda node: calls(node, "structlog.configure", "logging.basicConfig"))
    assert {place.split(":")[0] for place in configures} <= {"service/logs.py"}
    assert configures


def test_private_keys_are_known_to_the_command_line_only() -> None:
    assert importers("service.keys")
    assert all(file.startswith("service/cli/") for file in importers("service.keys"))


def test_child_processes_import_nothing_of_the_store_but_its_records() -> None:
    found = {module for path in under("agent") for module, _ in imports(path) if module.split(".")[0] == "store"}
    assert found
    assert all(module.startswith("store.records") for module in found)


# ── what a command costs ─────────────────────────────────────────────────────────────────────────────────────────────

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "trl",
    "numpy",
    "pydantic",
    "fastapi",
    "httpx",
    "sqlite_utils",
    "cedarpy",
    "faiss",
}
CALL = """
import sys
sys.argv = {argv!r}
try:
    import service.cli
    if len(sys.argv) > 1:
        service.cli.main()
except SystemExit:
    pass
print("loaded:", *sorted({{module.partition(".")[0] for module in sys.modules}} & {heavy!r}))
"""


@pytest.mark.parametrize("arguments", [(), ("--help",), ("status", "--help"), ("approve", "--help"), ("no-such",)])
def test_the_command_line_shows_its_help_without_loading_a_model_library(arguments: tuple[str, ...]) -> None:
    code = CALL.format(argv=["honed", *arguments], heavy=HEAVY)
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.splitlines()[-1].split()[1:])
    light_enough = {"cedarpy"} if "approve" in arguments else set()  # signing reads the rules
    assert loaded <= light_enough
