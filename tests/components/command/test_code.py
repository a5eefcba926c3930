from pathlib import Path

import pytest

from components.command.code import ROOT, code_fingerprint, import_closure


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "components/__init__.py": "",
        "components/bake.py": '''
import json
import numpy as np
from components.command.step import Input
def bake():
    """Import where it is needed."""
    from san_core.oven import heat
    from san_core import dough, LIMIT
    import san_core.tools.spoon
''',
        "components/command/step.py": "",
        "components/other.py": "",
        "san_core/__init__.py": "LIMIT = 3",
        "san_core/oven.py": "from .fire import flame\nfrom . import smoke",
        "san_core/fire.py": "from san_core import oven  # in a circle",
        "san_core/smoke.py": "",
        "san_core/dough.py": "from san_core._knead import knead",
        "san_core/_knead.pyx": "",
        "san_core/_knead.pyi": "",
        "san_core/tools/__init__.py": "from san_core.tools import fork",
        "san_core/tools/spoon.py": "",
        "san_core/tools/fork.py": "from ..water import wet",
        "san_core/tools/page.jinja": "",
        "san_core/tools/README.md": "",
        "san_core/water.py": "",
        "san_core/unused/__init__.py": "",
        "san_core/unused/body.npz": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_closure_is_what_is_imported_and_no_more(project):
    found = import_closure("components.bake", project)
    assert [file.relative_to(project).as_posix() for file in found] == [
        "components/__init__.py",
        "components/bake.py",
        "components/command/step.py",
        "san_core/__init__.py",
        "san_core/_knead.pyx",
        "san_core/dough.py",
        "san_core/fire.py",
        "san_core/oven.py",
        "san_core/smoke.py",
        "san_core/tools/__init__.py",
        "san_core/tools/fork.py",
        "san_core/tools/page.jinja",
        "san_core/tools/spoon.py",
        "san_core/water.py",
    ]


@pytest.mark.parametrize(
    "edited", ["components/bake.py", "san_core/_knead.pyx", "san_core/tools/page.jinja"]
)
def test_edit_of_what_is_used_changes_the_fingerprint(project, edited):
    before = code_fingerprint("components.bake", project)
    (project / edited).write_text((project / edited).read_text() + "\n# more")
    assert code_fingerprint("components.bake", project) != before


@pytest.mark.parametrize(
    "edited", ["components/other.py", "san_core/unused/body.npz", "san_core/tools/README.md"]
)
def test_edit_of_anything_else_does_not(project, edited):
    before = code_fingerprint("components.bake", project)
    (project / edited).write_text("more")
    assert code_fingerprint("components.bake", project) == before


def test_renamed_file_changes_the_fingerprint(project):
    before = code_fingerprint("components.bake", project)
    page = project / "san_core" / "tools" / "page.jinja"
    page.rename(page.with_name("sheet.jinja"))
    assert code_fingerprint("components.bake", project) != before


def test_fingerprint_does_not_depend_on_where_the_code_lies(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("site-packages") / "copy"
    project.rename(elsewhere)
    moved = code_fingerprint("components.bake", elsewhere)
    elsewhere.rename(project)
    assert code_fingerprint("components.bake", project) == moved


def test_unknown_module_is_refused(project):
    with pytest.raises(FileNotFoundError, match=r"no module components\.cook in "):
        import_closure("components.cook", project)


def test_real_step_depends_on_itself_and_on_its_tools():
    found = {file.relative_to(ROOT).as_posix() for file in import_closure("components.make_pit")}
    assert {
        "components/make_pit.py",
        "components/command/step.py",
        "components/storage/outputs.py",
    } <= found
    assert {"san_core/images/imageset.py", "san_core/synthesis/person/body.npz"} <= found
    assert not {"components/train_san.py", "components/__main__.py"} & found
