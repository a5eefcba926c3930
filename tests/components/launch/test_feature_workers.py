"""How many workers embed the test images, and the shape of the graph that follows."""

import argparse

import pytest

from components.launch.feature_workers import graph_of_count, shape_graph, worker_names
from components.launch.parameters import FEATURE_PARAMETERS
from pipeline import GRAPHS

BASELINE = GRAPHS["baseline"]


def shaped(*words, **values):
    """The workers of the shaped graph, None where it is that of one; and the words left."""
    options = argparse.Namespace(param=list(words))
    graph, chosen = shape_graph(BASELINE, values, options)
    if graph is BASELINE:
        assert "feature_workers" not in chosen
        return None, options.param
    assert set(FEATURE_PARAMETERS) <= set(graph.parameters)
    assert graph.defaults["feature_workers"] == chosen["feature_workers"]
    return chosen["feature_workers"], options.param


@pytest.mark.parametrize("word", ["feature_workers=1", 'feature_workers=["0/1"]'])
def test_graph_of_one_worker_is_as_without_the_parameter(word):
    assert shaped() == (None, [])
    assert shaped(word, "seed=2") == (None, ["seed=2"])


def test_number_of_workers_names_them():
    assert worker_names(3) == ["0/3", "1/3", "2/3"]
    assert shaped("seed=2", "feature_workers=3") == (["0/3", "1/3", "2/3"], ["seed=2"])
    assert shaped('feature_workers=["1/2","0/2"]') == (["1/2", "0/2"], [])


def test_word_counts_more_than_what_a_run_keeps():
    assert shaped(feature_workers=["0/2", "1/2"])[0] == ["0/2", "1/2"]
    assert shaped("feature_workers=1", feature_workers=["0/2", "1/2"])[0] is None
    assert shaped("feature_workers=3", feature_workers=2)[0] == ["0/3", "1/3", "2/3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["feature_workers=0"], "feature_workers is 0: it must be 1 to 1,000"),
        (["feature_workers=1001"], "feature_workers is 1001: it must be 1 to 1,000"),
        (["feature_workers=0/2"], "'0/2' is neither a number nor a list, such as"),
        (["feature_workers=true"], "'true' is neither a number nor a list"),
        (["feature_workers=2", "feature_workers=3"], "feature_workers is given twice"),
    ],
)
def test_other_numbers_of_workers_are_refused(words, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        shaped(*words)


def test_graph_is_shaped_by_a_count_alone():
    assert graph_of_count(BASELINE, None) is graph_of_count(BASELINE, 1) is BASELINE
    assert graph_of_count(BASELINE, 2).defaults["feature_workers"] == ["0/2", "1/2"]
    with pytest.raises(ValueError, match="feature_workers is -1: it must be 1"):
        graph_of_count(BASELINE, -1)
