"""The sample of mutants that `make bench GROUP=tests` tries."""

import pytest

from components.command.code import ROOT
from tests.benchmarks.mutants.modules import AREAS
from tests.benchmarks.mutants.mutant import Mutant, equivalent_mutants, without_comment
from tests.benchmarks.mutants.trying import MutantTrials

WHOLE_ROOMS = {
    "ranking": "san_core/evaluation",
    "losses": "san_core/training",
    "storage": "components/storage",
}
# Pages and files, which are no ranking; what only calls others.
ELSEWHERE = {"kernels/compiled.py", "feature_files.py", "feature_parts.py", "given_files.py"}
# What of training is no loss: steps, states, processes and arithmetic.
ELSEWHERE |= {
    *("averaging.py", "distributed.py", "loop.py", "optimisation.py"),
    *("precision.py", "state.py", "validation.py"),
}


def test_modules_and_tests_of_the_sample_exist():
    for tests in AREAS.values():
        for module, files in tests.items():
            assert [place for place in (module, *files) if not (ROOT / place).exists()] == []


@pytest.mark.parametrize(("area", "room"), WHOLE_ROOMS.items())
def test_every_module_of_a_folder_is_in_the_sample(area, room):
    found = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / room).rglob("*.py")
        if file.stat().st_size and not {"pages", "check"} & set(file.parts)
    }
    known = {*AREAS[area], *AREAS["keys"], *(f"{room}/{name}" for name in ELSEWHERE)}
    assert found - known == set()


def fault_of(listed):
    """What is wrong with a mutant that is listed as equivalent; empty if nothing is."""
    lines = (ROOT / listed["module"]).read_text("utf-8").splitlines()
    if listed["before"] not in [without_comment(line.strip()) for line in lines]:
        return "no such line"
    if listed["before"] == listed["after"]:
        return "no change"
    return "" if len(listed["reason"]) > 20 else "no reason"


def test_every_equivalent_mutant_changes_an_existing_line():
    assert [one for one in equivalent_mutants() if fault_of(one)] == []


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({}, ""),
        ({"before": "return 1 / 0"}, "no such line"),
        ({"after": "import pytest"}, "no change"),
        ({"reason": "it is"}, "no reason"),
    ],
)
def test_an_equivalent_mutant_needs_line_change_and_reason(wrong, fault):
    listed = {
        "module": "tests/test_mutants.py",
        "before": "import pytest",
        "after": "import pytest as pytest",
        "reason": "the name that is bound is the same",
    }
    assert fault_of(listed | wrong) == fault


@pytest.fixture
def trials(tmp_path):
    """Of a project of one function, whose test looks at one sign of its argument."""
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "signs.py").write_text("def sign(x, above=0):\n    return 1 if x > above else -1\n")
    (tmp_path / "test_signs.py").write_text(
        "from signs import sign\n\n\ndef test_sign():\n    assert sign(2) == 1\n"
    )
    return MutantTrials(tmp_path, tmp_path / "kept" / "found")


def mutant(code):
    return Mutant("signs.py", 2, "", code, f"def sign(x, above=0):\n    {code}\n")


TESTS = ("test_signs.py",)
KILLED = mutant("return -1 if x > 0 else -1")
SURVIVES = mutant("return 1 if x > 1 else -1")
ENDLESS = mutant("import time; time.sleep(600)")
OF_A_DEFAULT = Mutant(
    "signs.py", 1, "", "", "def sign(x, above=2):\n    return 1 if x > above else -1\n"
)


@pytest.mark.slow
def test_mutants_are_killed_by_a_test_that_fails_or_does_not_end(trials, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.mutants.forks.SECONDS_LONGER", 45)
    found = trials.survivors([KILLED, SURVIVES, ENDLESS, OF_A_DEFAULT], TESTS)
    assert found == [SURVIVES]
    assert (trials.tree / "signs.py").read_text().endswith("return 1 if x > above else -1\n")


def test_comments_alone_do_not_make_a_mutant_another(trials):
    def key():
        return trials._key(KILLED, TESTS)

    file = trials.tree / "test_signs.py"
    source, before = file.read_text(), key()
    file.write_text(f'"""What is tested."""  # a remark\n{source}')
    assert key() == before
    file.write_text(f"{source}    assert sign(1) == 1\n")
    assert key() != before


@pytest.mark.slow
def test_what_was_found_is_kept_until_the_tests_change(trials):
    assert trials.survivors([SURVIVES], TESTS) == [SURVIVES]
    again = MutantTrials(trials.tree, trials.tree / "kept" / "found")
    source = (trials.tree / "signs.py").read_text()
    (trials.tree / "signs.py").write_text("")  # what would be run now fails
    assert again.survivors([SURVIVES], TESTS) == [SURVIVES]
    (trials.tree / "signs.py").write_text(source)
    with (trials.tree / "test_signs.py").open("a") as file:
        file.write("    assert sign(1) == 1\n")
    assert again.survivors([SURVIVES], TESTS) == []
    with (trials.tree / "test_signs.py").open("a") as file:
        file.write("    assert sign(0) == 1\n")
    with pytest.raises(RuntimeError, match=r"test_signs\.py fail without any mutant"):
        again.survivors([SURVIVES], TESTS)


@pytest.mark.slow
def test_a_mutant_is_not_killed_by_a_pytest_that_fails_itself(trials, monkeypatch):
    def fail(*_arguments):
        raise AttributeError("of pytest's own")

    monkeypatch.setattr("tests.benchmarks.mutants.forks.replace_functions", fail)
    with pytest.raises(RuntimeError, match="without any mutant, or pytest does"):
        trials.survivors([KILLED], TESTS)
