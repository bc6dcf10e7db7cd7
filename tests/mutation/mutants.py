"""Find what can be changed in a module: one small mistake of a programmer at a time.

Only the bodies of functions are changed. Left alone are asserts, the methods `check` that consist of them, docstrings,
annotations, decorators, defaults of parameters and `__repr__`: what they do is checked by other means or not at all.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
NEGATED_BY_SWAP = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
LEFT_ALONE = {"annotation", "returns", "decorator_list", "args"}
Replace = Callable[[ast.AST], None]


class Mutant(NamedTuple):
    """One change: where it is, of which kind, and how the statement reads before and after."""

    path: str
    line: int
    function: str
    kind: str
    before: str
    after: str
    code: Callable[[], CodeType]

    @property
    def place(self) -> str:
        """Return the file and the line."""
        return f"{self.path}:{self.line}"


class _Finder:
    """Walks one module's syntax. `found` has each change as the function that makes it, and takes it back."""

    def __init__(self, path: str, source: str) -> None:
        self._path = path
        self._tree = ast.parse(source)
        self._names: list[str] = []
        self._is_in_function = False
        self._statement: ast.stmt | None = None
        self.found: list[Mutant] = []

    def walk(self) -> list[Mutant]:
        """Return all mutants, in the order of the source."""
        self._children(self._tree)
        return self.found

    def _children(self, node: ast.AST, only: str | None = None) -> None:
        for field, value in ast.iter_fields(node):
            if (only is None and field in LEFT_ALONE and not isinstance(node, ast.Call)) or only not in (None, field):
                continue
            if isinstance(value, ast.AST):
                self._visit(value, lambda new, field=field: setattr(node, field, new))
            elif isinstance(value, list):
                for at, part in enumerate(value):
                    if isinstance(part, ast.AST):
                        self._visit(part, lambda new, value=value, at=at: value.__setitem__(at, new))

    def _visit(self, node: ast.AST, replace: Replace) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._enter(node)
        elif isinstance(node, ast.Lambda) and not self._is_in_function:
            return
        elif not isinstance(node, ast.Assert):
            outer = self._statement
            self._statement = node if isinstance(node, ast.stmt) else outer
            if self._is_in_function:
                for kind, changed in _changes(node):
                    self._add(kind, node, changed, replace)
            self._children(node)
            self._statement = outer

    def _enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        if node.name == "__repr__" or (node.name == "check" and any(isinstance(p, ast.Assert) for p in ast.walk(node))):
            return
        outer, was_in_function = self._statement, self._is_in_function
        self._names.append(node.name)
        self._is_in_function = was_in_function or not isinstance(node, ast.ClassDef)
        self._children(node, "body")
        self._is_in_function, self._statement = was_in_function, outer
        self._names.pop()

    def _add(self, kind: str, node: ast.AST, changed: ast.AST, replace: Replace) -> None:
        statement = self._statement
        assert statement is not None
        ast.copy_location(changed, node)
        ast.fix_missing_locations(changed)
        before = _head(statement)
        replace(changed)
        after = _head(changed if node is statement else statement)
        replace(node)

        def code() -> CodeType:
            replace(changed)
            try:
                return compile(self._tree, self._path, "exec", dont_inherit=True)
            finally:
                replace(node)

        line: int = getattr(node, "lineno", statement.lineno)
        self.found.append(Mutant(self._path, line, ".".join(self._names), kind, before, after, code))


def _head(statement: ast.AST) -> str:
    """Return the first line of a statement."""
    return ast.unparse(statement).split("\n", 1)[0]


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Give what may stand here instead, with the kind of the change."""
    if isinstance(node, ast.stmt):
        yield from _changes_of_statement(node)
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not _is_negated_by_swap(node.test):
        yield "negate a condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.comprehension):
        for at, condition in enumerate(node.ifs):
            if not _is_negated_by_swap(condition):
                negated: ast.expr = ast.UnaryOp(ast.Not(), condition)
                yield "negate a condition", _with(node, ifs=[*node.ifs[:at], negated, *node.ifs[at + 1:]])
    yield from _changes_of_expression(node)


def _changes_of_statement(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Expr):
        is_docstring_or_yield = isinstance(node.value, (ast.Constant, ast.Yield, ast.YieldFrom))
        if not is_docstring_or_yield:
            yield "delete a statement", ast.Pass()
    elif isinstance(node, ast.Assign):
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            yield "delete a statement", ast.Pass()
        elif isinstance(node.targets[0], ast.Name) and not isinstance(node.value, ast.Constant):
            yield "assign None", _with(node, value=ast.Constant(None))
    elif isinstance(node, (ast.AugAssign, ast.Raise, ast.Delete, ast.Continue, ast.Break)):
        yield "delete a statement", ast.Pass()
    elif isinstance(node, ast.Return):
        if node.value is None:
            yield "delete a statement", ast.Pass()
        elif not isinstance(node.value, ast.Constant):
            yield "return None", ast.Return(ast.Constant(None))


def _changes_of_expression(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield "swap a comparison", _with(node, ops=[SWAPPED[type(node.ops[0])]()])
    elif isinstance(node, (ast.BoolOp, ast.BinOp, ast.AugAssign)) and type(node.op) in SWAPPED:
        yield "swap an operator", _with(node, op=SWAPPED[type(node.op)]())
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "swap True and False", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "off by one", ast.Constant(node.value + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negate a condition", node.operand
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            other = "max" if node.func.id == "min" else "min"
            yield "swap min and max", _with(node, func=ast.Name(other, ast.Load()))
        for at, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                yield "drop an argument", _with(node, keywords=[*node.keywords[:at], *node.keywords[at + 1:]])


def _is_negated_by_swap(test: ast.expr) -> bool:
    is_swapped = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], NEGATED_BY_SWAP)
    return is_swapped or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))


def _with(node: Any, **fields: Any) -> Any:
    """Return the node with other values in some of its fields, and the same nodes in all others."""
    return ast.copy_location(type(node)(**{**dict(ast.iter_fields(node)), **fields}), node)


def mutants_of(path: Path) -> list[Mutant]:
    """Return all mutants of a file."""
    return _Finder(str(path), path.read_text()).walk()
