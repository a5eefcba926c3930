"""The code that a step's result depends on: the files its module imports, fingerprint and commit.

The import closure is read from the source, without importing anything. Imports inside function
bodies count; third-party packages do not. So a step is run again if code that it uses was edited,
and only then.
"""

import ast
import hashlib
import re
import subprocess
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN_PACKAGES = ("components", "san_core")
CYTHON_SUFFIXES = (".pyx", ".pxd")
DATA_SUFFIXES = (".npz", ".npy", ".jinja", ".json", ".css", ".pxi")
# Modules and whole packages that only make pages.
PAGE_MODULES = (
    *("san_core.pages", "san_core.evaluation.pages"),
    *(f"components.training.{n}" for n in ("report", "san_examples", "pg_examples", "events")),
)
# Folders of data that count as artifacts, not as code: their readers check the content.
ARTIFACT_FOLDERS = ("san_core/shipped",)


def code_fingerprint(
    module: str, root: Path = ROOT, *, with_pages: bool = True, without: Collection[str] = ()
) -> str:
    """The sha256, in hexadecimal, of the names and contents of `import_closure(module)`.

    A compiled file that is older than its source counts too, as it is what runs. The other
    arguments are those of `import_closure`.
    """
    files = import_closure(module, root, with_pages=with_pages, without=without)
    files += [compiled for source, compiled in _stale_kernels(root).items() if source in files]
    digest = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def stale_kernels(module: str, root: Path = ROOT) -> list[Path]:
    """The Cython sources in `import_closure(module)` that were edited after they were compiled."""
    stale = _stale_kernels(root)  # usually none, and then imports need not be read
    return [file for file in import_closure(module, root) if file in stale] if stale else []


def import_closure(
    module: str, root: Path = ROOT, *, with_pages: bool = True, without: Collection[str] = ()
) -> list[Path]:
    """The project's files that a module needs, itself included, sorted by name.

    These are the modules that it imports, directly or through others, the packages they lie in,
    the Cython source of compiled ones, and the data files (.npz, .jinja, .pxi ...) beside them.

    Args:
        module: dotted name, such as components.train_san
        root: the folder that holds components/ and san_core/, in a checkout or site-packages
        with_pages: whether code that only makes pages counts
        without: modules and whole packages that do not count

    Raises:
        FileNotFoundError: there is no such module.
    """
    if not _module_files(module, root):
        raise FileNotFoundError(f"no module {module} in {root}")
    found: set[Path] = set()
    waiting, seen = [module], {module}
    left_out = (*without, *(() if with_pages else PAGE_MODULES))
    while waiting:
        files = _module_files(waiting[-1], root)
        name = waiting.pop()
        found.update(files)
        for other in _imported_modules(name, files, root):
            if other not in seen and not _is_in(other, left_out):
                seen.add(other)
                waiting.append(other)
    folders = {file.parent for file in found} - {root / folder for folder in ARTIFACT_FOLDERS}
    found.update(f for folder in folders for f in folder.iterdir() if f.suffix in DATA_SUFFIXES)
    return sorted(found)


def git_commit() -> str:
    """The commit of this checkout: 12 digits, with -dirty if something is not committed.

    Untracked files in the packages count too, as images contain them. docker/images.sh does the
    same.

    Raises:
        OSError: git is not installed.
        CalledProcessError: this is not a checkout of a git repository.
    """
    commit = _ask_git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    unknown = _ask_git("ls-files", "--others", "--exclude-standard", "--", *OWN_PACKAGES)
    return f"{commit}-dirty" if unknown and not commit.endswith("-dirty") else commit


def _ask_git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _is_in(module: str, packages: Collection[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)


def _stale_kernels(root: Path) -> dict[Path, Path]:
    """Cython sources of a checkout that are newer than their compiled file, with that file.

    An installed package has none: it was compiled when it was built, and its files have new times.
    """
    stale = {}
    sources = root.glob("san_core/**/*.pyx") if (root / "pyproject.toml").is_file() else ()
    for source in sources:
        edited = max(file.stat().st_mtime_ns for file in _with_included(source))
        for compiled in source.parent.glob(f"{source.stem}.*.so"):
            if compiled.stat().st_mtime_ns < edited:
                stale[source] = compiled
    return stale


def _with_included(source: Path) -> set[Path]:
    """A Cython source and the files that it includes, directly or through others."""
    found, waiting = {source}, [source]
    while waiting:
        names = re.findall(r'^include "(.+)"', waiting.pop().read_text("utf-8"), re.MULTILINE)
        new = {source.parent / name for name in names} - found
        found |= new
        waiting += new
    return found


def _module_files(module: str, root: Path) -> list[Path]:
    """The sources of one module; empty if it is no module of this project."""
    if module.partition(".")[0] not in OWN_PACKAGES:
        return []
    path = root.joinpath(*module.split("."))
    candidates = [path.with_name(path.name + suffix) for suffix in (".py", *CYTHON_SUFFIXES)]
    return [file for file in (*candidates, path / "__init__.py") if file.is_file()]


def _imported_modules(module: str, files: list[Path], root: Path) -> Iterator[str]:
    """The project's modules that one module imports, and the packages around it."""
    yield from _with_parent_packages(module)
    for file in files:
        if file.suffix != ".py":
            continue
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for base, names in _read_imports(file.read_bytes(), package, str(file)):
            yield from _with_parent_packages(base)
            for name in names:  # each may be a submodule or something in the module
                if _module_files(f"{base}.{name}", root):
                    yield f"{base}.{name}"


@lru_cache(maxsize=4096)  # the steps of a pipeline share most modules
def _read_imports(source: bytes, package: str, file: str) -> tuple[tuple[str, list[str]], ...]:
    """The modules that the imports of a source name, each with the names taken from it."""
    found: list[tuple[str, list[str]]] = []
    for node in ast.walk(ast.parse(source, filename=file)):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((_absolute_module(node, package), [alias.name for alias in node.names]))
    return tuple(found)


def _absolute_module(node: ast.ImportFrom, package: str) -> str:
    """The module that `from ... import` names, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - node.level + 1]
    return ".".join([*kept, node.module] if node.module else kept)


def _with_parent_packages(module: str) -> Iterator[str]:
    """`a.b.c` imports a, a.b and a.b.c."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])
