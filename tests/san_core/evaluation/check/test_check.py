"""The check of the compiled loops, and what is said where they are missing."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from san_core.evaluation import ranking
from san_core.evaluation.check import __main__
from san_core.evaluation.kernels.compiled import _rerank
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocols import single_shot


def test_check_passes_and_names_the_instruction_set():
    done = subprocess.run(
        [sys.executable, "-m", "san_core.evaluation.check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("compiled loops run on ")
    for name in ("market1501", "camera-free", "sysu-mm01"):
        assert f"{name}: every rank as by sorting in float64" in done.stdout
    assert "re-ranking: every distance as by whole matrices" in done.stdout
    assert "single gallery shot: every expectation as by sums over draws" in done.stdout


def test_check_fails_where_a_rank_is_wrong(monkeypatch, capsys):
    honest = ranking.rank_distances

    def off_by_one(*args, **kwargs):
        found = honest(*args, **kwargs)
        return dataclasses.replace(found, first_rank=found.first_rank + 1)

    monkeypatch.setattr(ranking, "rank_distances", off_by_one)
    assert __main__.main() == 1
    assert "tied distances, market1501: first_rank differs" in capsys.readouterr().err


def test_check_fails_where_a_reranked_distance_is_wrong(monkeypatch, capsys):
    honest = _rerank.jaccard

    def without_one(*args, **kwargs):
        honest(*args, **kwargs)
        args[7][0, 0] += 1e-3

    monkeypatch.setattr(_rerank, "jaccard", without_one)
    assert __main__.main() == 1
    assert "the compiled re-ranking is wrong: features" in capsys.readouterr().err


@pytest.mark.parametrize("figure", ["cmc", "mAP_of_draw"])
def test_check_fails_where_an_expectation_is_wrong(monkeypatch, capsys, figure):
    honest = single_shot.expected_single_shot

    def off(*args, **kwargs):
        found = honest(*args, **kwargs)
        return found._replace(**{figure: getattr(found, figure) + 1e-9})

    monkeypatch.setattr(single_shot, "expected_single_shot", off)
    assert __main__.main() == 1
    assert f"single gallery shot is wrong: {figure} differs" in capsys.readouterr().err


EXTENSIONS = ("_features", "_ranking", "_rerank", "_single_shot")
WITHOUT_EACH = """
import sys
for extension in sys.argv[1:]:
    for name in [name for name in sys.modules if name.startswith("san_core.evaluation")]:
        del sys.modules[name]
    sys.modules[f"san_core.evaluation.kernels.{extension}"] = None
    from san_core.evaluation.check.__main__ import main
    print(main())
"""


def test_check_says_in_one_line_that_nothing_is_compiled():
    command = [sys.executable, "-c", WITHOUT_EACH, *EXTENSIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["1"] * len(EXTENSIONS)
    for extension, line in zip(EXTENSIONS, done.stderr.splitlines(), strict=True):
        assert line.startswith("san_core.evaluation is not compiled for this Python")
        assert f"{extension} halted" in line


def test_a_missing_extension_is_an_error_that_names_the_remedy():
    code = (
        "import sys; sys.modules['san_core.evaluation.kernels._ranking'] = None\n"
        "import san_core.evaluation.ranking"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: san_core.evaluation is not compiled for this Python")
    assert "run `make install`, or `pip install .`" in last


def test_ranks_do_not_depend_on_how_often_they_are_counted():
    # Counting again starts anew: nothing is left over from an earlier call.
    rng = np.random.default_rng(0)
    who = {
        "query": Labels(rng.integers(1, 9, 20), None),
        "gallery": Labels(rng.integers(0, 9, 500), None),
    }
    tile = Tile(slice(0, 20), rng.random((20, 500), dtype=np.float32))
    one, two = (ranking.rank_distances([tile], **who) for _ in range(2))
    assert one.scores() == two.scores()
