"""Kubeflow's cache: steps that read files unknown to Kubeflow are not cached."""

import pytest

from components.__main__ import STEPS
from components.kubeflow.caching import cache_what_reads_nothing, is_cacheable
from pipeline import GRAPHS

READING = {"prepare-reid", "take-generator", "take-model"}  # by a parameter of the graph
STORING = {"generate-textures", "seal-textures"}  # they look into their store themselves


def uncached(document: dict) -> set[str]:
    dags = [document["root"], *document["components"].values()]
    return {
        name
        for one in dags
        for name, task in one.get("dag", {}).get("tasks", {}).items()
        if "parameterIterator" not in task and not task["cachingOptions"].get("enableCache")
    }


@pytest.fixture
def compiled(tmp_path):
    return {name: graph.compile(tmp_path / f"{name}.yaml") for name, graph in GRAPHS.items()}


@pytest.mark.parametrize("graph", GRAPHS)
def test_what_may_be_given_a_place_in_the_run_is_not_cached(compiled, graph):
    tasks = {name.replace("_", "-") for name in STEPS}
    assert uncached(compiled[graph]) == (READING | STORING) & {
        name for name in tasks if f"comp-{name}" in compiled[graph]["components"]
    }


def test_features_are_cached_unless_workers_keep_their_parts_of_them(tmp_path):
    spread = GRAPHS["score"].with_feature_workers(["0/2", "1/2"]).compile(tmp_path / "s.yaml")
    cache_what_reads_nothing(spread, {"model": "s3://b/model"})
    assert uncached(spread) == {"take-model", "extract-features", "seal-features"}
    step = STEPS["extract_features"]
    assert is_cacheable(step, {})
    assert is_cacheable(step, {"feature_parts": "none"})
    assert not any(is_cacheable(step, {"feature_parts": place}) for place in ("", "s3://b/f"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, set()),
        ({"dataset": "market1501", "source": "s3://b/market"}, {"prepare-reid"}),
        ({"target": "msmt17", "target_source": "/data/msmt17"}, {"prepare-reid"}),
        ({"generator": "s3://b/generator"}, {"take-generator"}),
        ({"generator": "shipped", "checkpoint": "s3://b/c"}, set()),
    ],
)
def test_only_what_is_given_a_place_runs_anew(compiled, arguments, expected):
    cache_what_reads_nothing(compiled["ready"], arguments)
    assert uncached(compiled["ready"]) == expected | STORING


def test_a_place_that_a_graph_writes_itself_is_one():
    assert is_cacheable(STEPS["make_pit"], {"seed": 1, "source": ""})
    assert not is_cacheable(STEPS["make_pit"], {"source": "s3://b/pairs"})
    assert not is_cacheable(STEPS["seal_textures"], {"source": ""})
    assert is_cacheable(STEPS["train_san"], {"checkpoint": "s3://b/c"})


def test_a_constant_place_stays_uncached(compiled):
    tasks = compiled["full"]["root"]["dag"]["tasks"]
    constant = {"runtimeValue": {"constant": "s3://b/pairs"}}
    tasks["make-pit"]["inputs"]["parameters"]["source"] = constant
    tasks["make-pit"]["cachingOptions"] = {}
    cache_what_reads_nothing(compiled["full"], {})
    assert uncached(compiled["full"]) == STORING | {"make-pit"}
