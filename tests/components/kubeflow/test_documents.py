"""Reading and changing a compiled pipeline, on the golden files."""

import copy
from typing import Any

import kfp
import pytest
import yaml
from kfp import dsl

from components.kubeflow.documents import (
    as_spec,
    find_task,
    from_spec,
    mounted_folders,
    step_tasks,
    uncached_before,
    with_deadline,
    without_caching,
)
from tests.write_golden import GOLDEN

FULL = {
    *("make-pit", "prepare-reid", "train-san-pg", "generate-textures", "seal-textures"),
    *("check-reid", "train-san", "extract-features", "evaluate"),
}


def golden(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text("utf-8")))


def cached(documents: list[dict[str, Any]]) -> set[str]:
    """The steps that may be taken from the cache."""
    dags = [documents[0]["root"], *documents[0]["components"].values()]
    every = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    return {name for name, task in every if task.get("cachingOptions", {}).get("enableCache")}


def test_steps_are_the_tasks_that_run_a_container_in_loops_too():
    assert set(step_tasks(golden("full")[0])) == FULL


def test_step_is_found_by_its_own_name_and_by_that_of_its_task():
    document = golden("full")[0]
    assert find_task(document, "train_san") == find_task(document, "train-san") == "train-san"
    with pytest.raises(ValueError, match="no step 'train_sam'; did you mean 'train-san'"):
        find_task(document, "train_sam")


def test_caching_is_switched_off_for_one_step_or_for_all():
    documents = golden("full")
    before = copy.deepcopy(documents)
    assert cached(documents) >= {"train-san", "evaluate"}
    assert cached(without_caching(documents, {"train-san"})) == cached(documents) - {"train-san"}
    assert cached(without_caching(documents)) == set()
    assert documents == before


def test_uncached_predecessors_of_a_step_are_reported():
    document = golden("full")[0]
    never = FULL - cached([document])
    before = set(uncached_before(document, "train-san"))
    assert before == never - {"train-san", "extract-features", "evaluate"}
    assert before >= {"seal-textures", "generate-textures"}
    before = set(uncached_before(document, "train-san-pg"))
    assert before == never & {"make-pit", "prepare-reid"}  # textures follow
    assert set(uncached_before(document, "prepare-reid")) == never & {"make-pit", "train-san-pg"}
    (everything,) = without_caching([document])
    assert set(uncached_before(everything, "extract-features")) == FULL - {
        *("extract-features", "evaluate"),
    }


def test_deadline_is_written_as_kfp_writes_it(tmp_path):
    @dsl.pipeline(name="p", pipeline_config=dsl.PipelineConfig(active_deadline_seconds=7200))
    def theirs() -> None:
        dsl.importer("s3://b/k", dsl.Dataset)

    file = tmp_path / "p.yaml"
    kfp.compiler.Compiler().compile(theirs, str(file))
    definition, platform = yaml.safe_load_all(file.read_text("utf-8"))
    assert with_deadline([definition], 7200) == [definition, platform]


def test_deadline_stands_beside_what_the_pods_ask_for():
    documents = golden("cluster")
    changed = with_deadline(documents, 60)[1]["platforms"]["kubernetes"]
    assert changed.pop("pipelineConfig") == {"activeDeadlineSeconds": 60}
    assert changed == documents[1]["platforms"]["kubernetes"]


@pytest.mark.parametrize("name", ["full", "cluster"])
def test_documents_come_back_from_the_api_as_they_were(name):
    documents = golden(name)
    assert from_spec(as_spec(documents)) == documents


def test_folders_of_volumes_are_found():
    assert mounted_folders(golden("cluster")) == ["/data"]
    assert mounted_folders(golden("full")) == []
