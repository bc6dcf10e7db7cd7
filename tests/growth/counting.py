"""Count the steps that the broker takes, exactly, without a clock, including loops inside the interpreter's C code.

A profiler sees that `list.remove` or `sorted` was called, but not how long it took; a count of the processor's
instructions is not available everywhere; times differ from run to run. So `amqpd` is imported a second time with its
source rewritten: each call of a function, and each iteration of a loop or comprehension, counts one step. Whatever lets
C code walk a container counts its length: calls such as `sum`, `sorted`, `list(...)`, `dict.update`, `list.remove` or
`deque.rotate`, operators (`|`, `+`, `in`), slices, and unpacking with a star. Large integers count by their words,
heaps and bisections by the logarithm. Lazy iterators (`map`, `zip`, `chain`) count where they are consumed. The
rewritten code behaves as the original does, only slower, and the same input always takes the same number of steps.

Not counted: places that are only skipped, such as the empty ones at the head of a dictionary from which many entries
were deleted, and an index into the middle of a deque; both take about a nanosecond for each place.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import operator
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import BuiltinFunctionType, ModuleType
from typing import Any

CONTAINERS = (list, tuple, dict, set, frozenset, deque, array)
OCTETS = (bytes, bytearray, str)
BYTES_A_STEP = 256
BITS_A_STEP = 512
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))

# Of containers: what walks the container itself, and what walks its arguments. Anything else of them is one step.
WALKS_SELF = {
    "remove", "index", "count", "copy", "sort", "reverse", "insert", "rotate", "union", "difference", "intersection",
    "symmetric_difference", "issubset", "issuperset", "isdisjoint", "tolist", "intersection_update"}
WALKS_ARGUMENTS = {
    "extend", "extendleft", "update", "difference_update", "symmetric_difference_update", "union", "fromkeys", "join",
    "isdisjoint", "issubset", "issuperset", "difference", "intersection", "intersection_update"}
LOGARITHMIC = {"heappush", "heappop", "heapreplace", "heappushpop", "bisect", "bisect_left", "bisect_right", "insort",
               "insort_right", "insort_left"}
# Functions that look at their argument and do not walk it, and lazy ones, which count where they are consumed.
CONSTANT = {
    "len", "isinstance", "issubclass", "id", "hash", "iter", "next", "getattr", "setattr", "hasattr", "callable",
    "repr", "type", "map", "zip", "enumerate", "reversed", "range", "repeat", "chain", "from_iterable", "islice",
    "takewhile", "dropwhile", "count", "compress", "filter", "partial", "super", "property", "bool", "int", "float",
    "str"}


class Counter:
    """`steps` since the start."""

    steps = 0


COUNTER = Counter()


def _length(value: Any) -> int:
    if isinstance(value, CONTAINERS) or isinstance(value, VIEWS):
        return len(value)
    if isinstance(value, OCTETS):
        return len(value) // BYTES_A_STEP
    if isinstance(value, int):
        return value.bit_length() // BITS_A_STEP
    return 0


def _each(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        COUNTER.steps += 1
        yield value


def _consumed(value: Any) -> Any:
    """Count what a walk along this value costs: its length now, or of an iterator each item as it comes."""
    if hasattr(value, "__next__"):
        return _each(value)
    COUNTER.steps += _length(value)
    return value


def _step(value: Any = None) -> Any:
    COUNTER.steps += 1
    return value


def _call(function: Any, /, *arguments: Any, **named: Any) -> Any:
    """Call a function, after counting what C code does for it; functions in Python count for themselves."""
    if isinstance(function, BuiltinFunctionType):
        arguments = _arguments_of_builtin(function, arguments)
    elif isinstance(function, type) and function.__module__ in ("builtins", "collections", "array", "itertools"):
        COUNTER.steps += 1
        if function.__name__ not in CONSTANT:
            arguments = tuple(map(_consumed, arguments))
    elif type(function).__name__ in ("method_descriptor", "method-wrapper", "builtin_function_or_method"):
        COUNTER.steps += 1
        arguments = tuple(map(_consumed, arguments))
    return function(*arguments, **named)


def _arguments_of_builtin(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    COUNTER.steps += 1
    name, owner = function.__name__, function.__self__
    if isinstance(owner, (*CONTAINERS, *OCTETS, type)):
        if name in WALKS_SELF or (name == "pop" and isinstance(owner, list) and arguments and arguments[0] != -1):
            COUNTER.steps += _length(owner)
        return tuple(map(_consumed, arguments)) if name in WALKS_ARGUMENTS else arguments
    if name in LOGARITHMIC:
        COUNTER.steps += len(arguments[0]).bit_length()
        return arguments
    if name in CONSTANT:
        return arguments
    return tuple(map(_consumed, arguments))


def _operate(operate: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    COUNTER.steps += _length(left) + _length(right)
    return operate(left, right)


def _within(value: Any) -> Any:
    """Count a search by `in`: it walks lists, and looks into what is hashed."""
    if isinstance(value, (list, tuple, deque, array)) or hasattr(value, "__next__"):
        return _consumed(value)
    return value


def _sliced(value: Any) -> Any:
    COUNTER.steps += _length(value)
    return value


HELPERS: dict[str, Any] = {
    f"_counted{helper.__name__}": helper
    for helper in (_each, _consumed, _step, _call, _operate, _within, _sliced)}
OPERATORS = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitOr: "or_", ast.BitAnd: "and_", ast.BitXor: "xor",
    ast.LShift: "lshift", ast.RShift: "rshift", ast.Mod: "mod"}
HELPERS |= {f"_operator_{name}": getattr(operator, name) for name in OPERATORS.values()}


def _helper(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(f"_counted_{name}", ast.Load()), list(arguments), [])


class Rewriter(ast.NodeTransformer):
    """Puts the counting into a module. Annotations stay as they are: they are read as text by others."""

    def _with_step(self, body: list[ast.stmt]) -> list[ast.stmt]:
        first = 1 if ast.get_docstring(ast.Module(body, [])) is not None else 0
        return [*body[:first], ast.Expr(_helper("step")), *body[first:]]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Count the call; see to defaults and body."""
        node.args.defaults = [self.visit(one) for one in node.args.defaults]
        node.args.kw_defaults = [one and self.visit(one) for one in node.args.kw_defaults]
        node.body = self._with_step([self.visit(one) for one in node.body])
        return node

    visit_AsyncFunctionDef = visit_FunctionDef      # type: ignore[assignment]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """See to the value alone."""
        node.value = node.value and self.visit(node.value)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """Count the call."""
        node.body = _helper("step", self.visit(node.body))
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        """Count each turn."""
        self.generic_visit(node)
        node.body = self._with_step(node.body)
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        """Count each turn."""
        self.generic_visit(node)
        node.iter = _helper("each", node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        """Count each turn."""
        self.generic_visit(node)
        node.iter = _helper("each", node.iter)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Count what C code does."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("super", "TypeVar", "cast", "NewType"):
            return node
        return ast.Call(ast.Name("_counted_call", ast.Load()), [node.func, *node.args], node.keywords)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Count what is copied."""
        self.generic_visit(node)
        name = OPERATORS.get(type(node.op))
        if name is None:
            return node
        return _helper("operate", ast.Name(f"_operator_{name}", ast.Load()), node.left, node.right)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """Count what is added."""
        self.generic_visit(node)
        node.value = _helper("consumed", node.value)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Count a search."""
        self.generic_visit(node)
        node.comparators = [
            _helper("within", right) if isinstance(how, (ast.In, ast.NotIn)) else right
            for how, right in zip(node.ops, node.comparators)]
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Count what a slice copies."""
        self.generic_visit(node)
        if isinstance(node.slice, ast.Slice) and isinstance(node.ctx, ast.Load):
            return _helper("sliced", node)
        return node

    def visit_Starred(self, node: ast.Starred) -> ast.AST:
        """Count what is unpacked."""
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            node.value = _helper("consumed", node.value)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        """Count what is unpacked into it."""
        self.generic_visit(node)
        node.values = [
            _helper("consumed", value) if key is None else value for key, value in zip(node.keys, node.values)]
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        tree = Rewriter().visit(ast.parse(self.get_data(path)))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(HELPERS)
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Find modules of the broker, to be rewritten."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if _is_counted(name) else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


def _is_counted(name: str) -> bool:
    return name == "amqpd" or name.startswith("amqpd.")


def _is_apart(name: str) -> bool:
    """Whether the module is imported a second time, so that it knows the rewritten broker and no other."""
    return _is_counted(name) or name.startswith("tests.support") or name == "tests.growth.worlds"


_modules: dict[str, ModuleType] = {}


@contextmanager
def rewritten_broker() -> Iterator[ModuleType]:
    """While this lasts, imports find the broker that counts. Gives `tests.growth.worlds`, which uses it."""
    others = {name: module for name, module in sys.modules.items() if _is_apart(name)}
    for name in others:
        del sys.modules[name]
    sys.modules.update(_modules)
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield importlib.import_module("tests.growth.worlds")
    finally:
        sys.meta_path.remove(finder)
        _modules.update({name: module for name, module in sys.modules.items() if _is_apart(name)})
        for name in _modules:
            del sys.modules[name]
        sys.modules.update(others)


def steps_of(code: str, **names: Any) -> int:
    """Return the steps of an expression."""
    tree = ast.fix_missing_locations(Rewriter().visit(ast.parse(code, mode="eval")))
    before = COUNTER.steps
    eval(compile(tree, "<expression>", "eval"), {**HELPERS, **names})
    return COUNTER.steps - before
