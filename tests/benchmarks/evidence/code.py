"""Which code a measured row depends on, as one fingerprint; words about the code do not count."""

import ast
import functools
import hashlib
import io
import tokenize
from pathlib import Path

from components.command.code import ROOT, import_closure

RENDERING_MODULES = ("san_core.synthesis.dataset",)
TRAINING_MODULES = (
    "san_core.training.loop",
    "san_core.inference.textures",
    "san_core.model.weights",
)
SCORING_MODULES = (
    "san_core.inference.features",
    "san_core.evaluation.ranking",
    "san_core.evaluation.kernels.distance",
)
ALL_MODULES = (
    *RENDERING_MODULES,
    "san_core.synthesis.person.atlas",
    *TRAINING_MODULES,
    *SCORING_MODULES,
)
BENCHMARK_MODULES = ("data", "starts", "run", "score")  # which data, what is done, how scored
# Rows carry their recipe, which is compared field by field.
IGNORED_SUFFIXES = ("recipe.py", ".jinja", ".pyi", ".json", ".css")


@functools.cache
def code_fingerprint(
    modules: tuple[str, ...] = ALL_MODULES,
    benchmarks: tuple[str, ...] = BENCHMARK_MODULES,
    root: Path = ROOT,
) -> str:
    """sha256 of modules with all that they import; of Python, comments and docstrings aside."""
    files = {file for module in modules for file in import_closure(module, root)}
    files |= {root / "tests" / "benchmarks" / "evidence" / f"{name}.py" for name in benchmarks}
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.name.endswith(IGNORED_SUFFIXES):
            continue
        data = file.read_bytes()
        content = strip_comments(data.decode()).encode() if file.suffix == ".py" else data
        name = file.relative_to(root).as_posix()
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def strip_comments(source: str) -> str:
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
