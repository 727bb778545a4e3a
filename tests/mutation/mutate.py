"""How many small mistakes in the core its tests notice: `python -m tests.mutation.mutate [--sample 25] [module…]`.

Every mutant is one changed spot of one module. It is tried in a fork of a process that has loaded all else, so that one
takes about a second. What nobody notices is printed; SURVIVORS.md says why those may stay.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from control.journal import append
from infra import digest
from skyagent.mission.v1 import mission_pb2
from skyagent.run.v1 import command_pb2, event_pb2, run_service_pb2, state_pb2

LOADED = (append, digest, mission_pb2, command_pb2, event_pb2, run_service_pb2, state_pb2)
"""What the mutants need is loaded once, before the forks."""

ROOT = Path(__file__).parents[2]
MODULES = (
    *("run", "tree", "index", "dispatch", "check", "retry", "validate", "listing", "finish", "planner", "phases"),
    *("summary", "moments", "outcome_table"),
)
TESTS = ("run", "dispatch", "dispatch_endings", "check", "retry", "validate", "listing", "planner", "outcome_table")
SECONDS = 30
PARALLEL = 2
UNCHANGED = -1

_TRUTHS = (ast.Name, ast.Attribute, ast.Call)

_SWAPPED = (
    *((ast.Eq, ast.NotEq), (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)),
    *((ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Add), (ast.Pow, ast.Mult), (ast.FloorDiv, ast.Mult)),
)
_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    **{after: before for before, after in _SWAPPED},
    **dict(_SWAPPED),
}


def mutate(node: ast.AST) -> str:  # noqa: C901 -- one table of changes, read best in one piece
    """Changes one spot; what was done, or nothing when there is nothing to do."""
    match node:
        case ast.Compare(ops=[op, *further]) if type(op) in _OTHER:
            _put(node, "ops", [_OTHER[type(op)](), *further])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OTHER:
            _put(node, "op", _OTHER[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _put(node, "op", ast.UAdd())
            _put(node, "operand", ast.Call(ast.Name("bool", ast.Load()), [operand], []))
        case ast.Constant(value=bool() as value):
            _put(node, "value", not value)
        case ast.Constant(value=int() as value):
            _put(node, "value", value + 1)
        case ast.Constant(value=str() as value) if value:
            _put(node, "value", f"{value}?")
        case ast.Return(value=ast.Constant(value=None)):
            return ""
        case ast.Return(value=ast.expr()):
            _put(node, "value", ast.Constant(None))
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if isinstance(test, _TRUTHS):
            _put(node, "test", ast.UnaryOp(ast.Not(), test))
        case ast.Expr(value=ast.Call() as call):
            _put(node, "value", ast.Constant(None))
            return f"without {ast.unparse(call)[:80]}"
        case _:
            return ""
    return ast.unparse(node).splitlines()[0][:100]


def _put(node: ast.AST, field: str, value: object) -> None:
    setattr(node, field, value)


def spots(tree: ast.Module) -> Iterator[int]:
    """Positions, in the order of a walk, of what can be changed; texts that only describe are left out."""
    texts = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    notes = {id(part) for node in ast.walk(tree) for part in _annotations(node)}
    for position, node in enumerate(ast.walk(tree)):
        if id(node) not in texts | notes and mutate(copy.deepcopy(node)):
            yield position


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        if isinstance(found := getattr(node, name, None), ast.AST):
            yield from ast.walk(found)


class Mutant(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Loads one module with one change."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self._name, self._tree = name, tree

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, self._name, "exec"), module.__dict__)


def try_in_fork(module: str, position: int) -> int:
    """The process in which the tests run against a mutant: it ends with 0 when they notice nothing."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(SECONDS)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    tree = ast.parse((ROOT / f"control/core/{module}.py").read_text())
    if position >= 0:
        mutate(list(ast.walk(tree))[position])
    ast.fix_missing_locations(tree)
    for name in [name for name in sys.modules if name.startswith("control.")]:
        del sys.modules[name]
    sys.meta_path.insert(0, Mutant(f"control.core.{module}", tree))
    hypothesis.settings.register_profile("few", max_examples=10, derandomize=True, database=None, deadline=None)
    hypothesis.settings.load_profile("few")
    files = [str(ROOT / f"tests/control/core/test_{name}.py") for name in TESTS]
    try:
        code = int(pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:randomly", *files]))
    except BaseException:  # noqa: BLE001 -- a mutant may break anything
        code = 1
    os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=25, help="mutants of each module; 0 means all")
    parser.add_argument("modules", nargs="*", default=MODULES)
    arguments = parser.parse_args()
    _, unchanged = os.waitpid(try_in_fork("listing", UNCHANGED), 0)
    if unchanged:
        sys.exit("the tests do not even pass on what is not changed")
    killed = tried = 0
    for module in arguments.modules:
        tree = ast.parse((ROOT / f"control/core/{module}.py").read_text())
        chosen = list(spots(tree))
        if arguments.sample and len(chosen) > arguments.sample:
            chosen = sorted(random.Random(module).sample(chosen, arguments.sample))
        noticed = _campaign(module, chosen)
        _say(f"{module}: {noticed} of {len(chosen)} noticed")
        killed, tried = killed + noticed, tried + len(chosen)
    _say(f"{killed} of {tried} noticed: {100 * killed / max(tried, 1):.0f} %")


def _campaign(module: str, chosen: Sequence[int]) -> int:
    left, running, noticed = list(chosen), dict[int, int](), 0
    while left or running:
        while left and len(running) < PARALLEL:
            position = left.pop(0)
            running[try_in_fork(module, position)] = position
        pid, status = os.wait()
        position = running.pop(pid)
        if status:
            noticed += 1
        else:
            node = list(ast.walk(ast.parse((ROOT / f"control/core/{module}.py").read_text())))[position]
            line, was = getattr(node, "lineno", 0), ast.unparse(node).splitlines()[0][:80]
            _say(f"  {module}.py:{line}: {was}  ->  {mutate(node)}")
    return noticed


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
