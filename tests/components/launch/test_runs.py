"""`pipeline.py runs list` without a host; test_submitting.py has it with one."""

import pytest

import pipeline
from tests.components.experiments.made_runs import make_run

GOOD = {"rank1": 0.5, "mAP": 0.25}


def test_runs_are_listed_here_without_a_host(tmp_path, capsys):
    make_run(tmp_path / "a", GOOD)
    assert pipeline.main(["runs", "list", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("a    done")
    assert pipeline.main(["runs", "list", "--runs", str(tmp_path / "none")]) == 1
    assert f"there are no runs in {tmp_path}/none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--experiment", "x"], "--experiment needs --host"),
        (["--most", "0"], "--most 0 is not a number of runs"),
        (["--host", "http://h", "--runs", "x"], "--runs is for local runs; it has no effect"),
    ],
)
def test_wrong_words_of_the_list_are_refused(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["runs", "list", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
