"""The order of the packages, allowed imports, and imports of heavy dependencies.

pipeline.py -> components -> san_core; inside these, see `ORDER`.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from components.__main__ import STEPS
from components.command.code import ROOT, import_closure

TREES = ("components", "san_core", "tests", "tools")
MOST_FILES = 14
SAN_CORE = sorted((ROOT / "san_core").rglob("*.py"))
COMPONENTS = sorted((ROOT / "components").rglob("*.py"))
STEP_FILES = [ROOT / "components" / f"{name}.py" for name in STEPS]
# A command, whose work is to print.
CHECK = ROOT / "san_core" / "evaluation" / "check" / "__main__.py"
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


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=str(file))


@cache
def imported_by(file: Path) -> frozenset[str]:
    return frozenset(imported(parsed(file)))


@cache
def used_in(file: Path) -> frozenset[str]:
    return frozenset(used(parsed(file)))


def importers(files: Iterable[Path], *packages: str) -> list[str]:
    """Which of the files import any of the packages, by name and package."""
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in sorted(imported_by(file))
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


# Rooms from the lowest to the highest: a file imports from its own room and from those before it.
# The longest name counts, so that a file or a folder of a room may lie lower or higher than it.
ORDER = (
    "san_core.checked_json",
    "san_core.disk",
    "san_core.seeds",
    "san_core.recipe",
    "san_core.recipes",
    "san_core.images",
    "san_core.pages",
    "san_core.shipped",
    "san_core.data",
    "san_core.data.readers",
    "san_core.data.batches",
    "san_core.model.trunks",
    "san_core.model",
    "san_core.synthesis.difficulty",
    "san_core.synthesis.world",
    "san_core.synthesis.person",
    "san_core.synthesis.wardrobe",
    "san_core.synthesis.place",
    "san_core.synthesis.camera",
    "san_core.synthesis.street",
    "san_core.synthesis",
    "san_core.evaluation.kernels",
    "san_core.evaluation",
    "san_core.evaluation.protocols",
    "san_core.evaluation.pages",
    "san_core.evaluation.check",
    "san_core.search",
    "san_core.inference",
    "san_core.training",
    "components.process",
    "components.storage",
    "components.inference",
    "components.command",
    "components.scoring",
    "components.training",
    "components.nodes",
    "components.runner",
    "components.experiments",
    "components",  # the steps
    "components.__main__",
    "components.kubeflow",
    "components.launch",
    "pipeline",
)


def module_of(file: Path) -> str:
    """A file's dotted name; that of a package is the folder's."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The innermost of the listed packages that contains a module."""
    return max((room for room in ORDER if f"{module}.".startswith(f"{room}.")), key=len)


def imports_of(files: Iterable[Path]) -> dict[str, set[str]]:
    """Which of the modules each of them imports, anywhere in it; packages are not counted."""
    named = {module_of(file): imported_by(file) for file in files if file.name != "__init__.py"}
    return {
        module: {one for name in names for one in (name, name.rpartition(".")[0]) if one in named}
        for module, names in named.items()
    }


def upward(imports: Mapping[str, set[str]]) -> list[str]:
    """Every import of a module in a higher room."""
    return [
        f"{module} imports {other}"
        for module, others in sorted(imports.items())
        for other in sorted(others)
        if ORDER.index(room_of(other)) > ORDER.index(room_of(module))
    ]


def circles(imports: Mapping[str, set[str]]) -> list[str]:
    """The modules that cannot be put into an order in which each imports earlier ones only."""
    left = dict(imports)
    while ready := [module for module, others in left.items() if not others & left.keys()]:
        for module in ready:
            del left[module]
    return sorted(left)


def test_imports_run_from_higher_rooms_to_lower_ones():
    assert upward(imports_of(EVERYTHING)) == []


def test_no_file_imports_itself_through_others():
    assert circles(imports_of(EVERYTHING)) == []


def test_every_room_of_the_order_is_there():
    assert {room_of(module_of(file)) for file in EVERYTHING if file.stem != "__init__"} == {*ORDER}


def test_an_import_upwards_and_a_circle_are_found():
    imports = {
        "components.storage.places": {"components.command.run", "san_core.images.shard"},
        "components.command.run": {"components.storage.places"},
        "san_core.images.shard": set(),
    }
    assert upward(imports) == ["components.storage.places imports components.command.run"]
    assert circles(imports) == ["components.command.run", "components.storage.places"]


def test_no_folder_holds_more_python_files_than_a_look_takes_in():
    tracked = [file for top in TREES for file in (ROOT / top).rglob("*.py")]
    counts = Counter(file.parent.relative_to(ROOT).as_posix() for file in tracked)
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


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
    assert [str(file) for file in silent if name in used_in(file)] == []


@pytest.mark.parametrize("package", ["evaluation", "synthesis"])
def test_evaluation_and_synthesis_work_without_torch(package):
    files = sorted((ROOT / "san_core" / package).rglob("*.py"))
    assert len(files) > 1
    needed = {
        found
        for file in files
        for found in import_closure(".".join(file.relative_to(ROOT).with_suffix("").parts))
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
    components = ROOT / "components"
    allowed = {
        ROOT / "pipeline.py",
        components / "kubeflow" / "caching.py",
        components / "kubeflow" / "cluster.py",
        components / "kubeflow" / "component.py",
        components / "launch" / "graph.py",
        components / "launch" / "run_request.py",
        components / "runner" / "containers.py",
    }
    assert importers(set(EVERYTHING) - allowed, "kfp") == []
    asking = {components / "kubeflow" / f"{name}.py" for name in ("api", "connection", "follow")}
    assert importers(set(EVERYTHING) - asking, "kfp_server_api") == []
    assert importers(set(EVERYTHING) - allowed, "docker") == []


def test_minio_is_imported_in_two_files_only():
    storage = ROOT / "components" / "storage"
    allowed = {storage / "object_store.py", storage / "s3_client.py"}
    assert importers(set(EVERYTHING) - allowed, "minio") == []
    assert importers(allowed, "minio")


def test_nothing_is_unpickled():
    assert importers(EVERYTHING, "pickle", "joblib", "dill", "shelve", "marshal") == []


def test_json_is_parsed_in_one_place_alone():
    reader = ROOT / "san_core" / "checked_json.py"
    parsers = {"json.load", "json.loads", "json.JSONDecoder"}
    assert [file for file in EVERYTHING if parsers & used_in(file)] == [reader]
    assert importers(EVERYTHING, *parsers, "json.decoder", "orjson", "simplejson") == []


def test_importing_all_steps_is_light():
    code = "import sys, components.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert "components.train_san" in modules
    assert not modules & {"torch", "kfp", "minio", "numpy", "PIL", "tqdm", "yaml"}
