"""Rules of the source: who may import whom, what no file may contain, and what every file must contain.

If an import fails here, move the code to another package, or change the table below and CONTRIBUTING's map, with a
reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "amqpd"

# The modules that belong to no room: values and rules that import nothing but each other.
BASE = {"erlang", "errors", "exit_codes", "fields", "identity", "message", "packed_table", "patterns", "properties",
        "tls_facts", "wording"}
ROOMS = {"broker", "config", "logs", "management", "session", "store", "wire"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "fields": set(),
    "message": set(),
    "erlang": {"fields"},
    "packed_table": {"fields"},
    "patterns": set(),
    "exit_codes": set(),
    "identity": set(),
    "tls_facts": set(),
    "wording": set(),
    "properties": {"erlang", "errors", "fields", "message"},
    "logs": {"wording"},
    "wire": BASE,
    "broker": BASE,
    "store": BASE | {"broker"},
    "session": BASE | {"broker", "wire"},
    "management": BASE | {"broker"},
    "config": BASE,
    "server": BASE | ROOMS,
    "program": {"exit_codes", "wording"},      # the way to complain, of both programs
    "cli": {"config", "exit_codes", "logs", "program", "server", "store_commands"},
    # A running broker is asked as amqpctl asks.
    "store_commands": {"config", "ctl", "exit_codes", "identity", "program", "store", "wording"},
    "perf": BASE | {"program", "wire"},         # a client: it knows nothing of the broker
    "ctl": {"erlang", "exit_codes", "identity", "program", "wording"},
    "__main__": {"cli"},
}
ENGINES = ("amqpd.store.sqlite", "amqpd.store.postgres")
OPENS_THE_STORE, READS_A_STOPPED_STORE = Path("server", "startup.py"), Path("server", "config_check.py")
# All the thinking is plain and synchronous: what these rooms know of time and of the world is handed to them.
THINKING = BASE | {"broker", "session", "wire"}
WAITING = {
    "anyio", "asyncio", "concurrent", "multiprocessing", "selectors", "socket", "ssl", "subprocess", "threading",
    "time", "uvloop"}
ONLY_IN = {
    "sqlite3": {"store"}, "sqlite_utils": {"store"}, "psycopg": {"store"},
    "pamqp": {"perf", "wire", "session", "server", "management"},
    "click": {"cli", "ctl", "perf", "program", "store_commands"}}
# pamqp's classes are ours to use, its codec is not: see wire/methods.py.
CODEC = {"pamqp.body", "pamqp.decode", "pamqp.encode", "pamqp.frame", "pamqp.header"}
# Who may catch whatever it is, and why nobody else need.
CATCHES_ALL = {
    ("management/http/application.py", "_answer"): "a fault of one request is logged, and answered with status 500",
    ("patterns.py", "_compile"): "whatever a library finds wrong with a pattern, only that pattern is refused",
    ("broker/clock.py", "advance"): "a queue that cannot do what is due does not keep others from being woken",
    ("broker/queue/delivery.py", "_deliver"): "an error in one client's connection is not its publishers'",
    ("broker/queue/dead_letters.py", "send"): "messages that cannot be given to the router are set aside",
    ("session/closing.py", "_let_go"): "a connection that ends lets go of all it has, whatever fails",
    ("server/guard.py", "guard"): "an error in one connection does not reach the others",
    ("server/page_store.py", "serve"): "a queue that cannot read does not keep others from it",
    ("broker/dead_letter_router.py", "work_on"): "a piece that cannot be moved is set aside, and the next has its turn",
    ("broker/dead_letter_router.py", "_move"): "a message that cannot be moved is set aside, and the others are moved",
    ("broker/dead_letter_router.py", "_move_refused"): "one that cannot be moved is set aside, and others follow",
    ("broker/dead_letter_router.py", "_publish"): "a queue that cannot take dead letters leaves them where they were",
    ("management/statistics/statistics.py", "sample_forever"): "a sampling that fails does not keep the others from it",
    ("broker/moving.py", "move"): "a message that cannot be moved stays, and the others are moved",
    ("broker/moving.py", "_carry_out"): "a queue that cannot take messages leaves them where they were",
    ("management/message_commands.py", "_call"): "what is called back passes its error to the task that waits",
    ("broker/step_job.py", "_do_next"): "an act that fails does not keep the others of its job from being done",
    ("broker/hand_over.py", "_publish"): "a queue that cannot take a message does not keep the others from it",
    ("broker/queue/jobs.py", "run"): "a job that fails is over, whoever caused it",
    ("broker/worklist.py", "_work_on"): "a job that fails is over, and the others go on",
    ("broker/worklist.py", "work_on_urgent"): "a job that fails is over, and the others go on",
    ("program.py", "run"): "a bug becomes a line on stderr and an exit code",
    ("management/control.py", "answer"): "a bug becomes an answer, and the socket lives on",
    ("server/store_thread.py", "_work_forever"): "a bug in the thread becomes a failure of the store",
    ("server/store_thread.py", "_run"): "a bug becomes the failure of one job, and commits go on",
    ("session/receiver.py", "carry_out"): "a bug becomes 541 for one client, and the others live on",
    ("store/rows/reading.py", "read_rows"): "a message that cannot be read is set aside, and the others are read",
    ("store/rows/reading.py", "read_block"): "likewise",
    ("store/rows/reading.py", "facts"): "likewise, whatever reading its properties raises",
    ("store/rows/waiting.py", "gather_blocks"): "a block that cannot be read is taken apart, others are read",
    ("store/sqlite/block_index.py", "dissolve"): "a block that cannot be taken apart stays, and the others are read",
    ("store/restoring.py", "restore"): "a definition that cannot be built is told in a line",
    ("store/spill.py", "read"): "a message that cannot be read back is dropped, and the others are read",
    ("store/sqlite/database.py", "guarded"): "whatever kept a batch from being written, nobody may go on",
    ("store/postgres/database.py", "guarded"): "likewise",
}
# Bases that say nothing of their heirs' methods; of other bases those inherit what they do, docstring and all.
PLAIN_BASES = {
    "ABC", "Enum", "Exception", "Frame", "Generic", "IntEnum", "NamedTuple", "Protocol", "Struct", "StrEnum"}
MARKERS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
EXCUSE = re.compile(r"#\s*(type: ignore\[[\w, -]+\]|noqa: \w+)\s+(#|\().{8,}")


def sources(*folders: str) -> list[Path]:
    """Every Python file below these folders, by its name in the repository."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def each_of(files: Iterable[Path]) -> Callable[[Callable[[Path], None]], Callable[[str], None]]:
    """Try a rule on every file: one test for each folder, since thousands of tests take long for what they do."""
    folders: dict[str, list[Path]] = {}
    for file in files:
        folders.setdefault(str(Path(*file.parts[:2]).with_suffix("")), []).append(file)

    def decorate(rule: Callable[[Path], None]) -> Callable[[str], None]:
        @pytest.mark.parametrize("folder", folders)
        def test(folder: str) -> None:
            for file in folders[folder]:
                rule(file)

        test.__name__, test.__doc__ = rule.__name__, rule.__doc__
        return test

    return decorate


def room_of(path: Path) -> str:
    """The room, or the module of no room, that a file of the package belongs to."""
    return path.with_suffix("").parts[1]


@cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax."""
    return ast.parse((ROOT / path).read_text(), str(path))


def imports_of(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, wherever it stands."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} line {node.lineno}: a relative import hides the room it comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module", autouse=True)
def trees_are_forgotten() -> Iterator[None]:
    """Free the syntax of all files at the end: the collector would walk it in each later test."""
    yield
    tree_of.cache_clear()


PACKAGE_FILES = sources("amqpd")
ALL_FILES = sources("amqpd", "tests", "conformance")
every_package_file = each_of(PACKAGE_FILES)
every_file = each_of(ALL_FILES)


# Imports

def test_every_room_is_in_the_picture() -> None:
    assert {room_of(path) for path in PACKAGE_FILES} == MAY_IMPORT.keys() | {"__init__"}


@every_package_file
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        first, _, rest = name.partition(".")
        if first != "amqpd" or rest == "__version__":
            continue
        target = rest.split(".")[0]
        assert target == room or target in MAY_IMPORT.get(room, set()), f"{room} may not import {name}"


@every_package_file
def test_whoever_thinks_does_not_wait(path: Path) -> None:
    if room_of(path) in THINKING:
        assert not WAITING & {name.partition(".")[0] for name in imports_of(path)}


@every_package_file
def test_some_libraries_belong_to_some_rooms(path: Path) -> None:
    for name in imports_of(path):
        rooms = ONLY_IN.get(name.partition(".")[0])
        assert rooms is None or room_of(path) in rooms, f"{room_of(path)} may not import {name}"
        assert not any(name == module or name.startswith(module + ".") for module in CODEC), f"{name} is pamqp's codec"


@every_package_file
def test_only_its_own_room_and_who_opens_it_know_the_engine_of_the_store(path: Path) -> None:
    """One store or the other is opened by a start; the commands of `amqpd store` are those of SQLite's."""
    place = path.relative_to("amqpd")
    if not {Path("store", "sqlite"), Path("store", "postgres"), Path("store", "tools")} & {*place.parents}:
        engine = [name for name in imports_of(path) if name.startswith((*ENGINES, "sqlite", "psycopg"))]
        assert not engine or place in (Path("store_commands.py"), OPENS_THE_STORE), f"{path} imports {engine}"
        tools = [name for name in imports_of(path) if name.startswith("amqpd.store.tools")]
        assert not tools or place in (Path("store_commands.py"), READS_A_STOPPED_STORE), f"{path} imports {tools}"


def test_a_start_uses_the_engine_to_open_the_store_and_for_nothing_else() -> None:
    used = {name for name in imports_of(Path("amqpd", OPENS_THE_STORE)) if name.startswith(ENGINES)}
    assert used == {f"{engine}.store.Store" for engine in ENGINES} | {"amqpd.store.postgres.membership.Membership"}


@pytest.mark.parametrize("own, other", [ENGINES, ENGINES[::-1]])
def test_no_engine_knows_the_other(own: str, other: str) -> None:
    for path in PACKAGE.glob(f"{own.replace('.', '/').removeprefix('amqpd/')}/*.py"):
        assert not [name for name in imports_of(path.relative_to(ROOT)) if name.startswith(other)], path


def test_conformance_knows_nothing_of_amqpd() -> None:
    for path in sources("conformance"):
        assert not [name for name in imports_of(path) if name.split(".")[0] in ("amqpd", "tests")], path


def test_no_file_needs_itself() -> None:
    """No way along imports leads back to where it began; those for types alone count, since a reader follows them."""
    assert not circles({name: targets_of(path) - {name} for name, path in MODULES.items()})


def test_circles_are_seen_however_they_are_made() -> None:
    lines = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"a"}}
    assert not circles(lines)
    assert circles({**lines, "c": {"b"}}) == [{"b", "c"}]
    assert circles({**lines, "c": {"d"}, "e": {"e"}}) == [{"a", "b", "c", "d"}]


MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE_FILES}


def targets_of(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, for whatever use and wherever it says so."""
    return {name if name in MODULES else name.rpartition(".")[0] for name in imports_of(path)} & MODULES.keys()


def circles(needs: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of those that need each other, directly or through others."""
    reach = {name: set(found) for name, found in needs.items()}
    for middle in needs:
        for found in reach.values():
            if middle in found:
                found |= reach[middle]
    groups = [{other for other in reach[name] if name in reach[other]} for name in needs]
    return [group for place, group in enumerate(groups) if len(group) > 1 and group not in groups[:place]]


# What never stands in a file

@every_file
def test_nothing_is_left_to_be_done(path: Path) -> None:
    found = MARKERS.search((ROOT / path).read_text())
    assert found is None, f"{path} has a marker: {found and found[0]}"


@every_package_file
def test_nobody_catches_everything_but_who_must(path: Path) -> None:
    for function in ast.walk(tree_of(path)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for handler in ast.walk(function):
                if isinstance(handler, ast.ExceptHandler) and catches_all(handler):
                    place = str(path.relative_to("amqpd")), function.name
                    assert place in CATCHES_ALL, f"{path} line {handler.lineno} catches everything"


def catches_all(handler: ast.ExceptHandler) -> bool:
    """Whether a handler swallows whatever comes: it names no error, or every one, and does not pass it on."""
    named = ast.walk(handler.type) if handler.type else [ast.Name("Exception")]
    names = {node.id for node in named if isinstance(node, ast.Name)}
    passes_on = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    return bool(names & {"Exception", "BaseException"}) and not passes_on


def test_everybody_who_may_catch_everything_still_does() -> None:
    for file, function in CATCHES_ALL:
        names = [node.name for node in ast.walk(tree_of(Path("amqpd", file))) if isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(
            isinstance(handler, ast.ExceptHandler) and catches_all(handler) for handler in ast.walk(node))]
        assert function in names, f"{file} has no such {function} any more"


@every_package_file
def test_a_rule_is_broken_only_with_a_reason(path: Path) -> None:
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        if re.search(r"#\s*(type: ignore|noqa)", line):
            assert EXCUSE.search(line), f"{path} line {number} gives no reason"


@every_file
def test_no_file_knows_the_machine_it_was_written_on(path: Path) -> None:
    assert "/wo" "rk/" not in (ROOT / path).read_text()


@every_package_file
def test_asserts_have_no_effects(path: Path) -> None:
    """Python leaves them out when it is asked to."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):
            effects = [part for part in ast.walk(node.test) if isinstance(part, (ast.NamedExpr, ast.Await, ast.Yield))]
            assert not effects, f"{path} line {node.lineno} does something in an assert"


# Where tests may wait for a time to pass: what they watch is a process of its own, or time itself.
SLEEPERS = {Path("tests", folder) for folder in ("canary", "crash", "examples")}


@each_of(sources("tests"))
def test_tests_wait_for_events_and_not_for_a_time(path: Path) -> None:
    if SLEEPERS.isdisjoint(path.parents):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sleep", "time.sleep", "asyncio.sleep"):
                assert ast.unparse(node.args[0]) == "0", f"{path} line {node.lineno} sleeps"


@each_of(sources("tests", "conformance"))
def test_no_test_patches_a_constant_of_the_package(path: Path) -> None:
    """What a test wants otherwise is a parameter of the object that uses it."""
    assert not [*patched_constants(tree_of(path))]


@pytest.mark.parametrize("line", [
    "module.MOST = 3", "module.queue.MOST, other = 3, 4", "module.MOST += 1", "del module.MOST",
    "monkeypatch.setattr(module, 'MOST', 3)", "patch.object(module, '_MOST_2', 3)", "setattr(module, 'MOST', 3)",
    "monkeypatch.setattr('amqpd.broker.module.MOST', 3)", "with patch('amqpd.broker.module.MOST', 3): pass",
    "for name in ('A', 'MOST'): monkeypatch.setattr(module, name, 3)",
])
def test_a_patched_constant_is_seen_however_it_is_patched(line: str) -> None:
    assert [*patched_constants(ast.parse(f"from amqpd.broker import module\n{line}"))]


@pytest.mark.parametrize("line", [
    "MOST = 3", "module.most = 3", "os.MOST = 3", "monkeypatch.setattr(os, 'MOST', 3)", "self.MOST = 3",
    "monkeypatch.setattr(module, 'Most', 3)", "print(module, 'MOST')",
    "for name in ('a', 'b'): setattr(module, name, 3)",
])
def test_nothing_else_counts_as_a_patched_constant(line: str) -> None:
    assert not [*patched_constants(ast.parse(f"import os\nfrom amqpd.broker import module\n{line}"))]


CONSTANT = re.compile(r"(.*\.)?_?[A-Z][A-Z0-9_]+")
PATCHES = {"setattr", "delattr", "object", "patch"}


def patched_constants(tree: ast.Module) -> Iterator[str]:
    """Yield the statements of a test that give a constant of the package another value."""
    ours = {alias.asname or alias.name.partition(".")[0] for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
            if (getattr(node, "module", None) or alias.name).partition(".")[0] == "amqpd"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if first_name(node) in ours and CONSTANT.fullmatch(node.attr):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in PATCHES and node.args:
            target, name = node.args[0], node.args[1] if len(node.args) > 1 else None
            if isinstance(target, ast.Constant):
                found = [target] if str(target.value).startswith("amqpd.") else []
            else:
                found = constants_of(tree, name) if first_name(target) in ours else []
            if any(isinstance(one.value, str) and CONSTANT.fullmatch(one.value) for one in found):
                yield ast.unparse(node)


def first_name(node: ast.expr) -> str:
    """Return `module` for `module.queue.MOST`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def constants_of(tree: ast.Module, name: ast.expr | None) -> list[ast.Constant]:
    """Return the constants that an argument can stand for: its own value, or those of the loops that set it."""
    if isinstance(name, ast.Constant):
        return [name]
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and isinstance(name, ast.Name)
             and name.id in [target.id for target in ast.walk(node.target) if isinstance(target, ast.Name)]]
    return [one for loop in loops for one in ast.walk(loop.iter) if isinstance(one, ast.Constant)]


# What always stands in a file

@every_file
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"


@every_file
def test_every_module_has_lazy_annotations(path: Path) -> None:
    annotates = any(isinstance(node, (ast.arg, ast.AnnAssign)) for node in ast.walk(tree_of(path)))
    assert not annotates or "__future__.annotations" in imports_of(path)


@every_package_file
def test_everything_public_says_what_it_does(path: Path) -> None:
    for name, node in public(tree_of(path)):
        assert ast.get_docstring(node), f"{path} line {node.lineno}: {name} has no docstring"


def base_name(base: ast.expr) -> str:
    """`Struct` for `msgspec.Struct`, `Generic` for `Generic[T]`."""
    if isinstance(base, ast.Subscript):
        return base_name(base.value)
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""


def public(module: ast.Module) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The public classes and functions of a module, and those methods that no base class tells of."""
    for node in module.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef) and {base_name(base) for base in node.bases} <= PLAIN_BASES:
            for member in node.body:
                if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)) and not member.name.startswith("_"):
                    marks = member.decorator_list
                    if not any(isinstance(mark, ast.Attribute) and mark.attr == "setter" for mark in marks):
                        yield f"{node.name}.{member.name}", member
