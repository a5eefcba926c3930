import os
import re
import subprocess
from pathlib import Path

import pytest

from components.__main__ import STEPS
from components.command.code import (
    PAGE_MODULES,
    ROOT,
    code_fingerprint,
    git_commit,
    import_closure,
    stale_kernels,
)
from san_core.shipped.generator import SHIPPED_FOLDER


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


def test_what_makes_pages_may_be_left_out(project):
    pages = project / "san_core" / "pages"
    pages.mkdir()
    for name in ("__init__.py", "page.py", "page.html.jinja"):
        (pages / name).touch()
    bake = project / "components" / "bake.py"
    bake.write_text(bake.read_text() + "    from san_core.pages import page\n")
    with_pages = code_fingerprint("components.bake", project)
    without = code_fingerprint("components.bake", project, with_pages=False)
    (pages / "page.html.jinja").write_text("<p>")
    assert code_fingerprint("components.bake", project) != with_pages
    assert code_fingerprint("components.bake", project, with_pages=False) == without


def test_modules_that_make_pages_are_there_and_training_does_not_count_them():
    for name in PAGE_MODULES:
        assert import_closure(name)
    for step in ("train_san", "train_san_pg"):
        closure = import_closure(f"components.{step}", with_pages=False)
        found = {file.relative_to(ROOT).as_posix() for file in closure}
        assert not [name for name in found if "/pages/" in name]
        assert not found & {f"components/training/{name}.py" for name in ("report", "events")}
        assert "san_core/synthesis/mannequin.py" not in found
        assert "san_core/training/losses.py" in found


def test_generator_that_ships_is_no_code():
    assert SHIPPED_FOLDER / "generator.py" in import_closure("components.take_generator")
    for step in STEPS:
        found = import_closure(f"components.{step}")
        assert not {SHIPPED_FOLDER / "weights.safetensors", SHIPPED_FOLDER / "recipe.json"} & {
            *found
        }


@pytest.fixture
def kernel(project):
    """A compiled kernel of a checkout, with the files it includes."""
    (project / "pyproject.toml").touch()
    source = project / "san_core" / "_knead.pyx"
    source.write_text('include "_grip.pxi"\n')
    source.with_name("_grip.pxi").write_text("")
    source.with_name("_slip.pxi").write_text("")
    compiled = source.with_name("_knead.cpython-311-x86_64-linux-gnu.so")
    compiled.write_bytes(b"machine code")
    return source


@pytest.mark.parametrize(
    ("edited", "is_stale"), [("_knead.pyx", True), ("_grip.pxi", True), ("_slip.pxi", False)]
)
def test_kernel_that_was_edited_after_it_was_compiled_is_stale(project, kernel, edited, is_stale):
    assert stale_kernels("components.bake", project) == []
    os.utime(kernel.with_name(edited), (2**32, 2**32))
    assert stale_kernels("components.bake", project) == [kernel] * is_stale
    assert stale_kernels("components.other", project) == []
    (project / "pyproject.toml").unlink()  # an installed package, whose files have any time
    assert stale_kernels("components.bake", project) == []


def test_compiled_file_counts_as_long_as_it_is_older_than_its_source(project, kernel):
    (compiled,) = kernel.parent.glob("*.so")
    fresh = code_fingerprint("components.bake", project)
    compiled.write_bytes(b"other machine code")
    assert code_fingerprint("components.bake", project) == fresh
    os.utime(compiled, (1, 1))
    assert code_fingerprint("components.bake", project) != fresh
    os.utime(compiled)
    assert code_fingerprint("components.bake", project) == fresh


def test_file_that_git_does_not_know_makes_no_clean_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("components.command.code.ROOT", tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "notes.txt").touch()  # gets into no image
    assert re.fullmatch("[0-9a-f]{12}", clean := git_commit())
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "new.py").touch()
    assert git_commit() == f"{clean}-dirty"


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
