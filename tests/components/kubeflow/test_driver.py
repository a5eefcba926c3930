"""Compiled pipelines before the programs of a Kubeflow backend: does every task start there?"""

import pytest
import yaml

from components.__main__ import STEPS
from components.command.step import step_parser
from pipeline import GRAPHS
from tests.servers.kubeflow_driver import (
    PARAMETER,
    DriverError,
    merge_environment,
    pod_environment,
    resolve,
    words,
)
from tests.write_golden import GOLDEN

PLACES = {
    "destination": "s3://b/d",
    "checkpoint": "s3://b/c",
    "texture_source": "s3://b/t",
    "model": "s3://b/m",
}
FILES = [*GRAPHS, "cluster", "nodes"]


def golden(name: str) -> list[dict]:
    """The documents of a golden file: what is compiled, as another test makes sure."""
    return list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text("utf-8")))


def resolve_arguments(document: dict) -> dict:
    """Values for the parameters without a default, and two iterations of each loop."""
    declared = document["root"]["inputDefinitions"]["parameters"]
    values = {name: value for name, value in PLACES.items() if name in declared}
    return values | ({"workers": ["0/2", "1/2"]} if "workers" in declared else {})


def left_out(document: dict) -> list[str]:
    """Each parameter in a container's words that a task of that container does not pass."""
    dags = [document["root"], *document["components"].values()]
    every = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    found = []
    for name, task in every:
        component = document["components"][task["componentRef"]["name"]]
        executors = document["deploymentSpec"]["executors"]
        executor = executors.get(component.get("executorLabel"), {})
        if "container" in executor:
            asked = PARAMETER.findall(" ".join(words(executor)))
            passed = task.get("inputs", {}).get("parameters", {})
            found += [f"{name}: {one}" for one in asked if one not in passed]
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_task_passes_every_parameter_of_its_container(name):
    assert left_out(golden(name)[0]) == []


def test_a_parameter_that_a_task_leaves_out_is_found_inside_a_loop_too():
    document = golden("full")[0]
    loop = document["components"]["comp-for-loop-1"]["dag"]["tasks"]["generate-textures"]
    del loop["inputs"]["parameters"]["verify"]
    del document["root"]["dag"]["tasks"]["evaluate"]["inputs"]["parameters"]["rerank"]
    assert sorted(left_out(document)) == ["evaluate: rerank", "generate-textures: verify"]
    with pytest.raises(DriverError, match='evaluate: parameter "rerank" not found'):
        resolve(document, resolve_arguments(document), is_strict=True)


def words_of_step(found: list[str]) -> list[str]:
    """A step and its words, in the command of its pod or of the pod that follows its nodes."""
    own = found[found.index("components") + 1 :]
    return own[3:] if own[:2] == ["on_nodes", "--job"] else own


@pytest.mark.parametrize("is_strict", [True, False], ids=["2.17.0", "2.16"])
@pytest.mark.parametrize("name", FILES)
def test_driver_resolves_the_whole_graph(name, is_strict):
    document = golden(name)[0]
    resolved = resolve(document, resolve_arguments(document), is_strict=is_strict)
    for found in resolved.values():
        own = words_of_step(found)
        step_parser(STEPS[own[0]]).parse_args(own[1:])  # it exits where a word is not understood
        assert not any("inputs.parameters" in word for word in found)
    if "workers" in resolve_arguments(document):
        assert [name for name in resolved if "[1]" in name] == ["for-loop-1[1]/generate-textures"]


def test_driver_of_2_17_0_and_of_2_16_start_the_same_containers():
    document = golden("full")[0]
    given = resolve_arguments(document)
    assert resolve(document, given, is_strict=True) == resolve(document, given, is_strict=False)


def test_server_refuses_a_run_whose_parameter_has_no_value():
    with pytest.raises(DriverError, match="parameter texture_source has no value"):
        resolve(golden("textures")[0], {"checkpoint": "s3://b/c"}, is_strict=True)


# As KFP's own template of a pod has them; Argo merges the driver's patch into these.
POD = [{"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]


def test_no_entry_of_a_pods_environment_has_a_value_and_a_source():
    definition, platform = golden("cluster")
    containers = definition["deploymentSpec"]["executors"]
    patches = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(patches) == len(STEPS) - 3  # take_generator, take_model and seal_features are not
    for name, patch in patches.items():
        entries = pod_environment(containers[name]["container"], patch)
        names = [entry["name"] for entry in entries]
        given = {"SAN_CPUS", "TMPDIR"} if name == "exec-train-san" else {"SAN_CPUS"}
        assert len(names) == len(set(names)) == 8 + len(given)
        assert given <= set(names)
        for entry in merge_environment(POD, entries):
            assert ("value" in entry) is not ("valueFrom" in entry), entry


def test_the_same_name_twice_in_a_patch_becomes_an_entry_that_no_server_accepts():
    secret = {"secretName": "s", "keyToEnv": [{"envVar": "X", "secretKey": "k"}], "optional": True}
    entries = pod_environment({"env": [{"name": "X", "value": "1"}]}, {"secretAsEnv": [secret]})
    assert merge_environment(POD, entries)[1:] == [
        {
            "name": "X",
            "value": "1",
            "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}},
        }
    ]
