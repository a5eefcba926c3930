"""Fixtures of the runner's tests: a project of small steps and its pipelines."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler

from components.runner import local, processes
from components.runner.processes import ProcessLauncher
from tests.components.runner import forked_steps
from tests.components.runner.small_project import pipelines, write_project


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> dict[str, dict]:
    """Each pipeline as its compiled document."""
    root = tmp_path_factory.mktemp("small")
    write_project(root)
    documents = {}
    for name, pipeline in pipelines(root).items():
        compiler.Compiler().compile(pipeline, str(root / f"{name}.yaml"))
        documents[name] = yaml.safe_load((root / f"{name}.yaml").read_text())
    return documents


@pytest.fixture
def project(tmp_path) -> Path:
    write_project(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def quick_steps(monkeypatch) -> None:
    """Steps that need no new Python."""
    monkeypatch.setattr(processes, "subprocess", forked_steps)


@pytest.fixture
def go(project, compiled, quick_steps) -> Callable[..., list[str]]:
    """Run a pipeline under runs/small or another name; the lines seen, without times and paths."""

    def run(pipeline: str = "chain", *, name: str = "small", **options: Any) -> list[str]:
        terminal = io.StringIO()
        arguments = options.pop("arguments", {})
        try:
            local.run_pipeline(
                compiled[pipeline],
                arguments,
                folder=project / "runs" / name,
                launcher=ProcessLauncher(project),
                terminal=terminal,
                **options,
            )
        finally:
            lines = re.sub(r"\d+\.\d s", "T s", terminal.getvalue()).splitlines()
        return [line.replace(str(project), "") for line in lines]

    return run
