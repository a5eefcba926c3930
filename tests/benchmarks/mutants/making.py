"""Mutants: a module with one small defect each, as the operators of cosmic-ray make it.

Only operators that leave the type of an expression alone are taken: `+` becomes `-`, not `<<`,
which any test would notice; `/`, which joins paths, stays. A sample takes one mutant of a place,
and places in the order of a digest of the line they stand in: code that is edited changes the
sample there and nowhere else.
"""

import ast
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from parso.tree import NodeOrLeaf

from tests.benchmarks.mutants.mutant import Mutant, equivalent_mutants, without_comment

Position = tuple[int, int]  # line, and column in it

EXCHANGED = {
    "Comparison": (
        *("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt"),
        *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
    ),
    "Binary": (
        *("Add_Sub", "Sub_Add", "Mul_Div", "FloorDiv_Mul", "Mod_FloorDiv", "Pow_Mul"),
        *("BitOr_BitAnd", "BitAnd_BitOr"),
    ),
    "Unary": ("USub_UAdd", "Delete_Not", "Delete_Invert"),
}
OPERATORS = (
    *(f"Replace{kind}Operator_{pair}" for kind, pairs in EXCHANGED.items() for pair in pairs),
    *("AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "NumberReplacer"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
    *("ExceptionReplacer", "RemoveDecorator"),
)


class _Place(NamedTuple):
    """Where an operator may be applied: the `occurrence`-th place that it finds in a module."""

    rank: str  # its turn in a sample, a digest
    module: str
    operator: str
    occurrence: int


def sample_mutants(root: Path, modules: Iterable[str], *, count: int) -> list[Mutant]:
    """The first mutants of some modules, one of a place; those known as equivalent are left out."""
    places = sorted(place for module in modules for place in _places(root, module))[:count]
    made = [_make_mutant(root, place) for place in places]
    same = {(one["module"], one["before"], one["after"]) for one in equivalent_mutants()}
    return [
        one
        for one in made
        if (one.module, without_comment(one.before), without_comment(one.after)) not in same
    ]


def _places(root: Path, module: str) -> Iterable[_Place]:
    """Of every place of a module that can be mutated, the way that is first by its digest."""
    source = (root / module).read_text("utf-8")
    lines, types, tree = source.splitlines(), _type_spans(source), get_ast(source)
    found: dict[tuple[int, int], _Place] = {}
    for operator in OPERATORS:
        for occurrence, (start, end) in enumerate(_positions(tree, operator)):
            line = lines[start[0] - 1]
            token = line[start[1] : end[1]]
            is_star = line[start[1] : start[1] + 2] == "*,"  # of keywords, to cosmic-ray a product
            is_dotted = operator == "ExceptionReplacer" and "." in token  # which it cannot replace
            if is_star or is_dotted or any(first <= start < last for first, last in types):
                continue
            told = f"{module} {line.strip()} {start[1]} {operator} {occurrence % 2}"
            place = _Place(sha256(told.encode()).hexdigest(), module, operator, occurrence)
            found[start] = min(place, found.get(start, place))
    return found.values()


def _positions(tree: NodeOrLeaf, operator: str) -> Iterator[tuple[Position, Position]]:
    """Start and end of each occurrence of an operator, in the order in which it counts them."""
    finder = get_operator(f"core/{operator}")()
    for node in ast_nodes(tree):
        yield from finder.mutation_positions(node)


def _type_spans(source: str) -> list[tuple[Position, Position]]:
    """From where to where there is nothing but types, or imports of them."""
    nodes: list[ast.expr | ast.stmt | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes.append(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            nodes.append(node.annotation)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes.append(node)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in nodes
        if node is not None
    ]


def _make_mutant(root: Path, place: _Place) -> Mutant:
    source = (root / place.module).read_text("utf-8")
    code = mutate_code(source, get_operator(f"core/{place.operator}")(), place.occurrence)
    assert code is not None
    pairs = zip(source.splitlines(), code.splitlines(), strict=False)
    number, (before, after) = next(
        (number, pair) for number, pair in enumerate(pairs, 1) if pair[0] != pair[1]
    )
    return Mutant(place.module, number, before.strip(), after.strip(), code)
