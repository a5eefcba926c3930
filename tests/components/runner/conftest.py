"""What the tests of the runner share: a project of small steps and its pipelines."""

from pathlib import Path

import pytest
import yaml
from kfp import compiler

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
