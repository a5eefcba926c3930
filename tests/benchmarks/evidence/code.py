"""Which code a measured row depends on, as one fingerprint; words about the code do not count."""

import ast
import functools
import hashlib
import io
import tokenize
from pathlib import Path

from components.command.code import ROOT, closure

PEOPLE = ("san_core.synthesis.dataset",)
TRAINING = ("san_core.training.loop", "san_core.inference.textures", "san_core.model.weights")
JUDGING = (
    "san_core.inference.features",
    "san_core.evaluation.ranking",
    "san_core.evaluation.kernels.distance",
)
EVERYTHING = (*PEOPLE, "san_core.synthesis.person.atlas", *TRAINING, *JUDGING)
BENCHMARKS = ("data", "score")  # which data, and how scored
# Rows carry their recipe, which is compared field by field.
NOT_DECIDING = ("recipe.py", ".jinja", ".pyi", ".json", ".css")


@functools.cache
def fingerprint(
    modules: tuple[str, ...] = EVERYTHING,
    benchmarks: tuple[str, ...] = BENCHMARKS,
    root: Path = ROOT,
) -> str:
    """sha256 of modules with all that they import; of Python, comments and docstrings aside."""
    files = {file for module in modules for file in closure(module, root)}
    files |= {root / "tests" / "benchmarks" / "evidence" / f"{name}.py" for name in benchmarks}
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.name.endswith(NOT_DECIDING):
            continue
        data = file.read_bytes()
        content = bare(data.decode()).encode() if file.suffix == ".py" else data
        name = file.relative_to(root).as_posix()
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def bare(source: str) -> str:
    """Python source without comments, docstrings and empty lines."""
    lines = [list(line) for line in source.splitlines()]

    def blank(first: tuple[int, int], last: tuple[int, int]) -> None:
        for number in range(first[0] - 1, last[0]):
            start = first[1] if number == first[0] - 1 else 0
            end = last[1] if number == last[0] - 1 else len(lines[number])
            lines[number][start:end] = " " * (end - start)

    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            blank(token.start, token.end)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        text = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
        if text is not None and text.end_lineno is not None:
            end = text.end_lineno
            blank((text.lineno, text.col_offset), (end, len(lines[end - 1])))
    joined = ("".join(line).rstrip() for line in lines)
    return "\n".join(line for line in joined if line)
