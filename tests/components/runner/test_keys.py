"""What decides the result of a task: here of those that hand things on in a shared place."""

from dataclasses import replace

import pytest

from components.runner.ir import read_tasks
from components.runner.keys import finds_results_of, task_key
from components.runner.store import Store
from pipeline import GRAPHS


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """A model scored, its features embedded by two workers."""
    spread = GRAPHS["score"].with_feature_workers(["0/2", "1/2"])
    return spread.compile(tmp_path_factory.mktemp("compiled") / "p.yaml")


@pytest.fixture
def key(document, tmp_path):
    """The key of a task where features are kept in a place."""
    store = Store.of_runs(tmp_path / "runs")

    def key(name, place, **inputs):
        tasks = read_tasks(document, {"model": str(tmp_path), "feature_parts": str(place)})
        (task,) = (task for task in tasks if task.name == name)
        return task_key(task, store, code="c", inputs=inputs)

    return key


@pytest.mark.parametrize("name", ["extract_features-1", "seal_features"])
def test_place_of_features_counts_outside_of_the_store_alone(key, tmp_path, name):
    inside = key(name, tmp_path / "runs" / ".store" / "features")
    assert inside == key(name, tmp_path / "runs" / ".store" / "other") == key(name, "none")
    outside = {key(name, place) for place in (tmp_path / "mine", "s3://b/f", "s3://b/g")}
    assert len(outside | {inside}) == 4


def test_features_that_are_joined_count_and_no_input_twice(document, key):
    given = {"model": "/m", "feature_parts": "/f"}
    tasks = {task.name: task for task in read_tasks(document, given)}
    joined = tasks["seal_features"]
    assert finds_results_of(joined) == ("extract_features-0", "extract_features-1")
    assert finds_results_of(tasks["extract_features-0"]) == ()
    assert finds_results_of(replace(joined, parameters={"feature_parts": "none"})) == ()
    one, other = (key("seal_features", "/f", **{"extract_features-0 features": d}) for d in "ab")
    assert one != other
