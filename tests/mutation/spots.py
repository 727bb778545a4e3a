"""The small mistakes: where a module can be changed, and how. One mutant is one changed spot.

Changed are comparisons, boolean and arithmetic operators, `not`, constants, what is returned, which way an `if` goes,
calls and awaits made for their effect, and inside SQL the comparisons, AND, OR, NULL tests and orders.

Left out, because no test should notice them:

- sentences for people: a text of two words or more on one line, and every text inside an f-string that is one. SQL,
  regular expressions and the words of a dict (which code looks up) are no sentences. Single words count: codes, names;
- the log: calls of `log`;
- docstrings, annotations and what else only type checkers read: TYPE_CHECKING, `__all__`, Protocols, the first argument
  of `cast` and `TypeVar`, `frozen` and `slots` of a dataclass;
- schemas (CREATE …): the test of the migrations compares them as a whole.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SWAPPED = (
    *((ast.Eq, ast.NotEq), (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)),
    *((ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Add), (ast.Pow, ast.Mult), (ast.FloorDiv, ast.Mult)),
)
_OTHER: dict[type[ast.AST], type[ast.AST]] = {**{after: before for before, after in _SWAPPED}, **dict(_SWAPPED)}
_TRUTHS = (ast.Name, ast.Attribute, ast.Call)

_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|BEGIN|SAVEPOINT|RELEASE|ROLLBACK|WHERE|AND) ")
_OPERATOR = re.compile(r"(?<= )(<>|<=|>=|=|<|>|AND|OR|IS NOT NULL|IS NULL|NOT IN|IN|DESC)(?= |$)")
_SQL_OTHER = {
    "=": "<>", "<>": "=", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "AND": "OR", "OR": "AND",
    "IS NULL": "IS NOT NULL", "IS NOT NULL": "IS NULL", "IN": "NOT IN", "NOT IN": "IN", "DESC": "ASC",
}  # fmt: skip
_SENTENCE = re.compile(r"[^\n]*\w[^\n]* [^\n]*\w[^\n]*")


@dataclass(frozen=True, slots=True)
class Spot:
    """One mutant: the `variant`th change of the node at `position` in a walk of its module.

    A test that runs none of the `lines` cannot notice it; empty when it takes effect at import.
    """

    position: int
    variant: int
    line: int
    lines: range
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.line}: {self.was}  ->  {self.now}"


def spots(tree: ast.Module) -> Iterator[Spot]:
    """Every mutant of a module, in the order of a walk."""
    left_out = {id(part) for top in _left_out(tree) for part in ast.walk(top)}
    lines = dict(_run_by(tree, range(0), inside=False))
    for position, node in enumerate(ast.walk(tree)):
        for variant in range(0 if id(node) in left_out else _variants(node)):
            changed = copy.copy(node)
            mutate(changed, variant)
            was, now = _described(node, changed)
            yield Spot(position, variant, getattr(node, "lineno", 0), lines[id(node)], was, now)


def mutate(node: ast.AST, variant: int = 0) -> bool:  # noqa: C901 -- one table of changes, read best in one piece
    """Changes one spot; whether there was anything to change."""
    match node:
        case ast.Compare(ops=[op, *further]) if type(op) in _OTHER:
            return _put(node, "ops", [_OTHER[type(op)](), *further])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OTHER:
            return _put(node, "op", _OTHER[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _put(node, "op", ast.UAdd())
            return _put(node, "operand", ast.Call(ast.Name("bool", ast.Load()), [operand], []))
        case ast.Constant(value=bool() as value):
            return _put(node, "value", not value)
        case ast.Constant(value=int() | float() as value):
            return _put(node, "value", value + 1)
        case ast.Constant(value=str() as value) if _SQL.match(value):
            return _put(node, "value", _other_sql(value, variant))
        case ast.Constant(value=str() | bytes() as value) if value:
            return _put(node, "value", f"{value}?" if isinstance(value, str) else value + b"?")
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            return _put(node, "value", ast.Constant(None))
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if isinstance(test, _TRUTHS):
            return _put(node, "test", ast.UnaryOp(ast.Not(), test))
        case ast.Expr(value=ast.Call() | ast.Await()):
            return _put(node, "value", ast.Constant(None))
        case _:
            return False


def _put(node: ast.AST, field: str, value: object) -> bool:
    setattr(node, field, value)
    return True


def _variants(node: ast.AST) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.match(node.value):
        return len(_operators(node.value))
    return int(mutate(copy.copy(node)))


def _operators(sql: str) -> list[re.Match[str]]:
    """Behind the first WHERE, or in a piece that is put there: the `=` of SET compares nothing."""
    condition = re.search(r"\b(WHERE|ORDER)\b|^ AND\b", sql)
    return [] if condition is None or "CREATE " in sql else list(_OPERATOR.finditer(sql, condition.end()))


def _other_sql(sql: str, variant: int) -> str:
    found = _operators(sql)[variant]
    return sql[: found.start()] + _SQL_OTHER[found.group()] + sql[found.end() :]


def _described(was: ast.AST, now: ast.AST) -> tuple[str, str]:
    """Both from a little before where they begin to differ."""
    before, after = ast.unparse(was).splitlines()[0], ast.unparse(now).splitlines()[0]
    differ = next((i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), 0)
    start = max(0, differ - 40)
    return before[start : start + 80], after[start : start + 80]


def _left_out(tree: ast.Module) -> Iterator[ast.AST]:
    """The tops of what stands in the second list of this module's docstring."""
    looked_up = {id(text) for node in ast.walk(tree) for text in _looked_up(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and _SENTENCE.fullmatch("".join(_texts(node.values))):
            yield from (part for part in ast.walk(node) if isinstance(part, ast.Constant) and type(part.value) is str)
        elif isinstance(node, ast.Constant):
            if id(node) not in looked_up and isinstance(node.value, str) and _is_sentence(node.value):
                yield node
        else:
            yield from _never_read(node)


def _never_read(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Constant() as docstring):
            yield docstring
        case (
            ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name("log"))))
            | ast.Assign(targets=[ast.Name("__all__")])
            | ast.If(test=ast.Name("TYPE_CHECKING"))
            | ast.keyword(arg="frozen" | "slots")
            | ast.ClassDef(bases=[ast.Name("Protocol") | ast.Subscript(value=ast.Name("Protocol")), *_])
        ):
            yield node
        case ast.Call(func=ast.Name("cast" | "TypeVar" | "NewType"), args=[only_a_type, *_]):
            yield only_a_type
        case _:
            pass
    for name in ("annotation", "returns"):
        if isinstance(found := getattr(node, name, None), ast.AST):
            yield found


def _looked_up(node: ast.AST) -> Iterator[ast.AST]:
    """Texts that code compares, however many words they have."""
    match node:
        case ast.Dict(keys=keys, values=values):
            yield from (part for part in (*keys, *values) if part is not None)
        case ast.Call(func=ast.Attribute(value=ast.Name("re"))):
            yield from ast.walk(node)
        case _:
            pass


def _is_sentence(text: str) -> bool:
    return _SENTENCE.fullmatch(text) is not None and _SQL.match(text) is None


def _texts(parts: list[ast.expr]) -> Iterator[str]:
    """The parts of an f-string, with a word for each inserted value."""
    yield from (str(part.value) if isinstance(part, ast.Constant) else "_" for part in parts)


def _run_by(node: ast.AST, lines: range, *, inside: bool) -> Iterator[tuple[int, range]]:
    """For every node the lines of its statement, inside functions; the body of a compound statement is not of it."""
    yield id(node), lines
    body = {id(part) for part in node.body} if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else set[int]()
    for child in ast.iter_child_nodes(node):
        within = inside or id(child) in body
        own = _header(child) if within and isinstance(child, ast.stmt) else lines
        yield from _run_by(child, own, inside=within)


def _header(statement: ast.stmt) -> range:
    """Its own lines, without those of the statements in it."""
    inner: Sequence[ast.stmt] | Sequence[ast.match_case] = getattr(statement, "body", None) or getattr(
        statement, "cases", ()
    )
    if not inner:
        return range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    first = inner[0].pattern if isinstance(inner[0], ast.match_case) else inner[0]
    return range(statement.lineno, max(first.lineno, statement.lineno + 1))
