"""A session of pytest that collects once, and runs the tests of each mutant in a fork of itself.

In the fork the code of the function that has the defect is replaced: imports and collection, which
take longer than most tests, are done once for all mutants of the same tests.
"""

import ast
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import pytest

from tests.benchmarks.mutants.mutant import Mutant

# In a tree: which tests call a function, by its place, and how long each takes.
CALLERS = "callers.json"
# A mutant that waits for ever is noticed as one that is slow: by so many times, and seconds more.
TIMES_LONGER, SECONDS_LONGER = 3, 60
SECONDS_BETWEEN_LOOKS = 0.02
PYTEST_FAILED = (
    pytest.ExitCode.INTERNAL_ERROR,
    pytest.ExitCode.USAGE_ERROR,
    pytest.ExitCode.NO_TESTS_COLLECTED,
)


class ForkingSession:
    """A plugin that tells of each mutant whether a test fails on it, or does not end.

    The tests are those that call the function. One that sees the defect in what a fixture has made
    for another test, or in another process alone, does not count.
    """

    def __init__(
        self, tree: Path, mutants: Sequence[Mutant], tell: Callable[[Mutant, bool], None]
    ) -> None:
        self._tree = tree
        self._mutants = mutants
        self._tell = tell

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        items = session.items[:]
        child = os.fork()
        if not child:
            os.setsid()
            session.config.pluginmanager.register(_CallRecorder(self._tree))
            return (yield)
        if is_killed(wait_for(child, None)):
            os._exit(1)  # they fail without any mutant
        callers: dict[str, list[str]]
        seconds: dict[str, float]  # of each test
        callers, seconds = json.loads((self._tree / CALLERS).read_text("utf-8"))
        for mutant in self._mutants:
            module = self._tree / mutant.module
            source = module.read_text("utf-8")
            place = f"{mutant.module}:{_first_line_of_function(source, mutant.line)}"
            chosen = frozenset(callers.get(place, seconds))
            module.write_text(mutant.code, "utf-8")  # for what the tests start
            child = os.fork()
            if not child:
                os.setsid()
                replace_functions(mutant, source, module)
                # The quickest first: most mutants are killed by the first test that calls them.
                session.items[:] = sorted(
                    (one for one in items if one.nodeid in chosen),
                    key=lambda one: seconds[one.nodeid],
                )
                session.config.pluginmanager.register(_TestTimer(seconds))
                return (yield)
            limit = TIMES_LONGER * sum(map(seconds.__getitem__, chosen)) + SECONDS_LONGER
            self._tell(mutant, is_killed(wait_for(child, limit)))
            module.write_text(source, "utf-8")
        session.items.clear()
        return (yield)


def wait_for(child: int, seconds: float | None) -> int:
    """The exit status of a process, or 1 if it takes longer; what it started ends with it."""
    until = time.monotonic() + seconds if seconds else None
    status = 1
    while until is None or time.monotonic() < until:
        ended, waited = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(waited)
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    return status


def is_killed(status: int) -> bool:
    """Whether an exit status of pytest says that a test failed, could not be read, or died.

    Raises:
        RuntimeError: it says that pytest itself failed, or found no test.
    """
    if status in PYTEST_FAILED:
        raise RuntimeError(f"pytest ends with status {status}")
    return status != 0


def is_in_function(mutant: Mutant, source: str) -> bool:
    """Whether a defect is in what a function does, and not in its defaults or outside of any."""
    return bool(_changed_functions(mutant, source, mutant.module))


def replace_functions(mutant: Mutant, source: str, module: Path) -> None:
    """Let all functions of a module that is imported do what they do in the mutant."""
    changed = {_key(code): code for code in _changed_functions(mutant, source, str(module))}
    for function in gc.get_objects():
        # Not isinstance, which asks objects that pretend to be of another type.
        if type(function) is FunctionType and function.__code__.co_filename == str(module):
            function.__code__ = changed.get(_key(function.__code__), function.__code__)


def _changed_functions(mutant: Mutant, source: str, file: str) -> list[CodeType]:
    """The code of the mutant's functions that differ from the source's."""
    before = {_key(code): code for code in _functions_in(compile(source, file, "exec"))}
    after = _functions_in(compile(mutant.code, file, "exec"))
    return [code for code in after if _key(code) in before and code != before[_key(code)]]


def _functions_in(code: CodeType) -> Iterator[CodeType]:
    """The code of all functions in some code; that of a module and of classes is none."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & 0x2:  # CO_NEWLOCALS, which bodies of classes have not
                yield inner
            yield from _functions_in(inner)


def _key(code: CodeType) -> tuple[object, ...]:
    return code.co_firstlineno, code.co_qualname, code.co_freevars


def _first_line_of_function(source: str, line: int) -> int:
    """Where the innermost function begins, with its decorators, that a line is in; or 0."""
    found = 0
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min(part.lineno for part in (node, *node.decorator_list))
            if first <= line <= (node.end_lineno or 0):
                found = max(found, first)
    return found


class _TestTimer:
    """A plugin that ends the process if a test takes too long.

    A test that sets an alarm of its own is ended with all others, by who waits for them.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        limit = TIMES_LONGER * self._seconds[item.nodeid] + SECONDS_LONGER
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class _CallRecorder:
    """A plugin that notes which tests call which functions of a tree."""

    def __init__(self, tree: Path) -> None:
        self._tree = f"{tree}/"
        self._callers: dict[str, list[str]] = {}
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        called, started = set(), time.monotonic()

        def note(frame: FrameType, _event: str, _argument: object) -> None:  # of calls alone
            called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

        threading.settrace(note)
        sys.settrace(note)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self._seconds[item.nodeid] = time.monotonic() - started
            for file, line in called:
                if file.startswith(self._tree):
                    place = f"{file.removeprefix(self._tree)}:{line}"
                    self._callers.setdefault(place, []).append(item.nodeid)

    def pytest_sessionfinish(self) -> None:
        found = json.dumps([self._callers, self._seconds])
        Path(self._tree, CALLERS).write_text(found, "utf-8")
