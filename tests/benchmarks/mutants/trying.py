"""Whether the tests that cover a module notice mutants of it; in a copy of the tree.

What was found is kept in a file, so that a measurement that was stopped goes on where it was. It is
found anew when the module or one of its test files has changed, in more than its comments.
"""

import compileall
import functools
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest

from tests.benchmarks.evidence.code import strip_comments
from tests.benchmarks.measuring import ROOT
from tests.benchmarks.mutants.forks import (
    SECONDS_LONGER,
    TIMES_LONGER,
    ForkingSession,
    is_in_function,
    is_killed,
    wait_for,
)
from tests.benchmarks.mutants.mutant import Mutant

KEPT = ROOT / "build" / "mutants.jsonl"
NOT_COPIED = (".git", ".venv", "runs", "build", "__pycache__", ".*_cache")
OWN_PACKAGES = ("components", "san_core", "tests", "pipeline")
HEAVY_PACKAGES = ("torch", "torchvision", "scipy.sparse", "h5py", "hypothesis", "kfp", "minio")
SAID = "said.txt"  # in a tree: what the last tests have said


class MutantTrials:
    """Runs tests on mutants in a copy of the tree; `kept` is the file of what was found."""

    def __init__(self, tree: Path, kept: Path = KEPT) -> None:
        self.tree = tree
        self._kept = kept
        kept.parent.mkdir(exist_ok=True)

    def survivors(self, mutants: Sequence[Mutant], tests: Sequence[str]) -> list[Mutant]:
        """The mutants on which no test fails.

        Raises:
            RuntimeError: one fails without any.
        """
        keys = {mutant: self._key(mutant, tests) for mutant in mutants}

        def keep(mutant: Mutant, is_killed: bool) -> None:
            with self._kept.open("a") as file:
                file.write(json.dumps([keys[mutant], is_killed]) + "\n")

        left = [one for one in mutants if keys[one] not in self._known()]
        sources = {one: (self.tree / one.module).read_text("utf-8") for one in left}
        within = [one for one in left if is_in_function(one, sources[one])]
        started = time.monotonic()
        if left and self._run(tests, ForkingSession(self.tree, within, keep), None) != 0:
            said = (self.tree / SAID).read_text("utf-8", "replace")
            raise RuntimeError(
                f"{' '.join(tests)} fail without any mutant, or pytest does:\n{said[-9000:]}"
            )
        limit = TIMES_LONGER * (time.monotonic() - started) + SECONDS_LONGER
        for one in (one for one in left if one not in within):
            (self.tree / one.module).write_text(one.code, "utf-8")
            keep(one, is_killed(self._run(tests, None, limit)))
            (self.tree / one.module).write_text(sources[one], "utf-8")
        known = self._known()
        return [one for one in mutants if not known[keys[one]]]

    def _known(self) -> dict[str, bool]:
        """Whether a mutant was killed, by its key."""
        lines = self._kept.read_text().splitlines() if self._kept.exists() else []
        return dict(map(json.loads, lines))

    def _key(self, mutant: Mutant, tests: Sequence[str]) -> str:
        found = sha256(strip_comments(mutant.code).encode())
        for place in (self.tree / test for test in tests):
            for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
                found.update(_stripped(file.read_text("utf-8")).encode())
        return found.hexdigest()

    def _run(self, tests: Sequence[str], plugin: object, seconds: float | None) -> int:
        """The exit status of pytest in a process of its own, or 1 if it takes longer."""
        child = os.fork()
        if not child:
            _run_pytest(self.tree, tests, plugin)
        return wait_for(child, seconds)


@functools.cache  # the same test files count for many mutants
def _stripped(source: str) -> str:
    return strip_comments(source)


def _run_pytest(tree: Path, tests: Sequence[str], plugin: object) -> NoReturn:
    """In a process of its own, run tests of a tree with the tree's own modules."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(tree / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(said, descriptor)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN_PACKAGES]:
        del sys.modules[name]
    # Plugins are here already, which is a warning, and so an error.
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
    options = ("-x", "-q", "-p", "no:cacheprovider", *quiet)
    status = pytest.main([*options, *tests], plugins=[plugin] if plugin else [])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def import_packages() -> None:
    """Import what takes seconds, once for all processes that are forked from this one."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in HEAVY_PACKAGES:
        importlib.import_module(name)


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of the checkout with what is compiled, whose modules may be changed at any time."""
    with TemporaryDirectory(prefix="mutants-") as name:
        tree = Path(name, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        # By their content: a mutant may be as long and as old as what it stands for.
        checked = PycInvalidationMode.CHECKED_HASH
        for package in ("components", "san_core"):
            compileall.compile_dir(tree / package, quiet=1, invalidation_mode=checked)
        yield tree
