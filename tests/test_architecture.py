"""Who may import whom: pipeline.py -> components -> san_core; who may import heavy packages."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from components.__main__ import STEPS
from components.command.code import ROOT, closure

SAN_CORE = sorted((ROOT / "san_core").rglob("*.py"))
COMPONENTS = sorted((ROOT / "components").rglob("*.py"))
STEP_FILES = [ROOT / "components" / f"{name}.py" for name in STEPS]
CHECK = (
    ROOT / "san_core" / "evaluation" / "check" / "__main__.py"
)  # a command, whose work is to print
EVERYTHING = [*SAN_CORE, *COMPONENTS, ROOT / "pipeline.py"]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module named in an import, inside functions too; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """The modules that importing a module imports: not in functions, not for type checkers."""
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_for_types:
            yield from imported(node)


def used(tree: ast.AST) -> set[str]:
    """Dotted names that are used, such as os.environ, and bare ones."""
    return {
        ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)
    }


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=str(file))


def importers(files: Iterable[Path], *packages: str) -> list[str]:
    """Which of the files import any of the packages, by name and package."""
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported(parsed(file))
        if any(name == package or name.startswith(package + ".") for package in packages)
    ]


SAMPLE = """
import a.b
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import for_types
def f():
    from c import d
    print(os.environ["X"])
"""


def test_imports_are_found_wherever_they_are():
    tree = ast.parse(SAMPLE)
    assert set(imported(tree)) == {"a.b", "typing.TYPE_CHECKING", "for_types", "c.d"}
    assert set(imported_at_once(tree)) == {"a.b", "typing.TYPE_CHECKING"}
    assert {"os.environ", "print"} <= used(tree)
    assert importers([ROOT / "components" / "kubeflow" / "component.py"], "kfp")


def test_san_core_knows_nothing_of_kubeflow_buckets_and_shells():
    assert importers(SAN_CORE, "kfp", "minio", "argparse", "components", "pipeline") == []


@pytest.mark.parametrize(
    "name",
    ["os.environ", "os.getenv", "print", "input", "sys.argv", "sys.stdout", "sys.stderr"],
)
def test_san_core_neither_reads_the_environment_nor_prints(name):
    is_printing = name in ("sys.stdout", "sys.stderr")
    silent = [file for file in SAN_CORE if file != CHECK or not is_printing]
    assert CHECK in SAN_CORE
    assert [str(file) for file in silent if name in used(parsed(file))] == []


@pytest.mark.parametrize("package", ["evaluation", "synthesis"])
def test_evaluation_and_synthesis_work_without_torch(package):
    files = sorted((ROOT / "san_core" / package).rglob("*.py"))
    assert len(files) > 1
    needed = {
        found
        for file in files
        for found in closure(".".join(file.relative_to(ROOT).with_suffix("").parts))
        if found.suffix == ".py"
    }
    assert importers(sorted(needed), "torch", "torchvision", "safetensors") == []


def test_components_do_not_know_the_pipeline():
    assert importers(COMPONENTS, "pipeline") == []


def test_step_does_not_import_another_step():
    assert importers(STEP_FILES, *(f"components.{name}" for name in STEPS)) == []


@pytest.mark.parametrize("file", STEP_FILES, ids=lambda file: file.stem)
def test_step_imports_heavy_things_in_its_body_only(file):
    allowed = {"components", *sys.stdlib_module_names}
    at_once = {name.partition(".")[0] for name in imported_at_once(parsed(file))}
    assert at_once <= allowed


def test_kfp_is_imported_where_pipelines_are_made_and_run_only():
    names = ("kubeflow/cluster.py", "runner/containers.py", "kubeflow/component.py")
    allowed = {ROOT / "pipeline.py", *(ROOT / "components" / name for name in names)}
    assert importers(set(EVERYTHING) - allowed, "kfp") == []
    elsewhere = set(EVERYTHING) - {ROOT / "components" / "kubeflow" / "api.py"}
    assert importers(elsewhere, "kfp_server_api") == []
    assert importers(set(EVERYTHING) - allowed, "docker") == []


def test_minio_is_imported_in_two_files_only():
    storage = ROOT / "components" / "storage"
    allowed = {storage / "object_store.py", storage / "s3_client.py"}
    assert importers(set(EVERYTHING) - allowed, "minio") == []
    assert importers(allowed, "minio")


def test_nothing_is_unpickled():
    assert importers(EVERYTHING, "pickle", "joblib", "dill", "shelve", "marshal") == []


def test_importing_all_steps_is_light():
    code = "import sys, components.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert "components.train_san" in modules
    assert not modules & {"torch", "kfp", "minio", "numpy", "PIL", "tqdm", "yaml"}
