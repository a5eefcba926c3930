"""The supported versions of Python, and the support by dependencies."""

import tomllib
from importlib.metadata import PackageNotFoundError, metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from components.command.code import ROOT

RANGE = SpecifierSet(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
)
OLDEST, NEWEST = "3.11.9", "3.14.2"  # of the first and the last version, one that all support


def pinned_packages() -> list[str]:
    """The packages of constraints.txt that are installed here."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line).name for line in lines if not line.startswith("#")]


def test_range_ends_where_the_project_says():
    assert OLDEST in RANGE
    assert NEWEST in RANGE
    assert "3.10.19" not in RANGE
    assert "3.15.0" not in RANGE
    readme = (ROOT / "README.md").read_text()
    assert "Python 3.11 to 3.14" in readme


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_pinned_package_runs_at_both_ends(version):
    refused, seen = [], 0
    for name in pinned_packages():
        try:
            needs = metadata(name)["Requires-Python"]
        except PackageNotFoundError:
            continue
        seen += 1
        if needs and version not in SpecifierSet(needs):
            refused.append(f"{name} needs Python {needs}")
    assert seen > 50
    assert refused == []
