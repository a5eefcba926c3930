"""Reading compiled pipelines: small documents, written as KFP writes them."""

import copy
from typing import Any

import pytest

from components.command.suggestion import suggestion
from components.runner import local
from components.runner.ir import TaskOutput, parse_argument, parse_arguments, read_tasks
from components.runner.processes import ProcessLauncher

DATASET = {"artifactType": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}}
HTML = {"artifactType": {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}}

# make -> eat, as KFP compiles it.
DOCUMENT = {
    "components": {
        "comp-make": {
            "executorLabel": "exec-make",
            "inputDefinitions": {
                "parameters": {
                    "count": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0},
                    "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 3.0},
                    "fast": {"parameterType": "BOOLEAN", "defaultValue": True},
                    "name": {"parameterType": "STRING"},
                }
            },
            "outputDefinitions": {"artifacts": {"data": DATASET}},
        },
        "comp-eat": {
            "executorLabel": "exec-eat",
            "inputDefinitions": {"artifacts": {"data": DATASET}},
        },
    },
    "deploymentSpec": {
        "executors": {
            "exec-make": {
                "container": {
                    "image": "small:1",
                    "command": ["python", "-m", "components", "make"],
                    "args": [
                        "--executor-input",
                        "{{$}}",
                        "--data",
                        "{{$.outputs.artifacts['data'].path}}",
                        "--count",
                        "{{$.inputs.parameters['count']}}",
                        "--rate",
                        "{{$.inputs.parameters['rate']}}",
                        "--fast",
                        "{{$.inputs.parameters['fast']}}",
                        "--name",
                        "{{$.inputs.parameters['name']}}",
                    ],
                    "env": [{"name": "LANG", "value": "C"}],
                }
            },
            "exec-eat": {
                "container": {
                    "image": "small:1",
                    "command": ["python", "-m", "components", "eat"],
                    "args": ["--data", "{{$.inputs.artifacts['data'].path}}"],
                }
            },
        }
    },
    "root": {
        "inputDefinitions": {"parameters": {"who": {"parameterType": "STRING"}}},
        "dag": {
            "tasks": {
                "eat-it": {
                    "componentRef": {"name": "comp-eat"},
                    "dependentTasks": ["make-it"],
                    "inputs": {
                        "artifacts": {
                            "data": {
                                "taskOutputArtifact": {
                                    "producerTask": "make-it",
                                    "outputArtifactKey": "data",
                                }
                            }
                        }
                    },
                },
                "make-it": {
                    "componentRef": {"name": "comp-make"},
                    "inputs": {
                        "parameters": {
                            "name": {
                                "runtimeValue": {
                                    "constant": "the {{$.inputs.parameters['channel--who']}}'s"
                                }
                            },
                            "channel--who": {"componentInputParameter": "who"},
                        }
                    },
                },
            }
        },
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with one thing set, named by its keys with dots between."""
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    place: Any = document
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return document


def test_tasks_come_in_an_order_they_can_run_in():
    make, eat = read_tasks(DOCUMENT, {"who": "baker"})
    assert (make.name, make.step, eat.name) == ("make_it", "make_it", "eat_it")
    assert eat.after == ("make_it",)
    assert eat.inputs == {"data": TaskOutput("make_it", "data")}
    assert make.outputs == {"data": "system.Dataset"}
    assert make.env == {"LANG": "C"}


def test_parameters_are_filled_in_as_kfp_writes_them():
    make, _ = read_tasks(DOCUMENT, {"who": "baker"})
    assert make.words[:4] == ("python", "-m", "components", "make")
    filled = dict(zip(make.words[4::2], make.words[5::2], strict=True))
    assert filled == {
        "--executor-input": "{{$}}",
        "--data": "{{$.outputs.artifacts['data'].path}}",
        "--count": "3",
        "--rate": "3.0",
        "--fast": "true",
        "--name": "the baker's",
    }
    assert make.parameters["count"] == 3
    assert type(make.parameters["count"]) is int


LOOP = {
    "componentRef": {"name": "comp-loop"},
    "parameterIterator": {"itemInput": "item", "items": {"raw": '["a", "b"]'}},
    "inputs": {},
}
BODY = {
    "dag": {
        "tasks": {
            "make-it": {
                "componentRef": {"name": "comp-make"},
                "inputs": {"parameters": {"name": {"componentInputParameter": "item"}}},
            },
            "eat-it": DOCUMENT["root"]["dag"]["tasks"]["eat-it"],
        }
    }
}


def looping(**spec: Any) -> dict[str, Any]:
    document = changed("components.comp-loop", BODY)
    document["root"]["dag"]["tasks"] = {"loop": {**LOOP, **spec}}
    return document


def test_loop_is_unrolled_and_its_tasks_keep_to_their_iteration():
    found = read_tasks(looping(), {"who": "x"})
    assert [task.name for task in found] == ["make_it-0", "make_it-1", "eat_it-0", "eat_it-1"]
    assert [task.parameters["name"] for task in found[:2]] == ["a", "b"]
    assert found[3].inputs == {"data": TaskOutput("make_it-1", "data")}
    assert found[3].after == ("make_it-1",)


def test_loop_over_something_else_is_refused():
    iterator = {"itemInput": "item", "items": {"raw": '"ab"'}}
    with pytest.raises(ValueError, match="loop loop is over 'ab', which is not a list"):
        read_tasks(looping(parameterIterator=iterator), {"who": "x"})


MAKE = "root.dag.tasks.make-it"
CONTAINER = "deploymentSpec.executors.exec-eat.container"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{MAKE}.triggerPolicy", {"condition": "true"}, "task make-it has triggerPolicy, which"),
        (f"{CONTAINER}.lifecycle", {}, "the container of task eat-it has lifecycle, which cannot"),
        (
            f"{MAKE}.inputs.parameters.count",
            {"taskOutputParameter": {"producerTask": "x"}},
            "parameter count comes from taskOutputParameter, which cannot be read here",
        ),
        (
            "root.dag.tasks.eat-it.inputs.artifacts.data",
            {"taskOutputs": {}},
            "artifact data comes from taskOutputs",
        ),
        (
            "components.comp-make.outputDefinitions.parameters",
            {"loss": {}},
            "task make-it: output parameters are not supported here",
        ),
        ("components.comp-make.dag", {"tasks": {}}, "task make-it: a pipeline inside the pipel"),
        (
            "deploymentSpec.executors.exec-eat",
            {"resolver": {}},
            "task eat-it: resolver cannot be run here",
        ),
        ("root.dag.outputs", {"artifacts": {}}, r"the graph has outputs \(such as dsl.Collected"),
        (f"{MAKE}.dependentTasks", ["eat-it"], "tasks wait for each other: "),
        (
            f"{CONTAINER}.args",
            ["{{$.pipeline_job_name}}"],
            r"task eat-it: \{\{\$.pipeline_job_name\}\} cannot be filled in",
        ),
        (
            f"{CONTAINER}.args",
            ["{{$.inputs.parameters['no']}}"],
            r"parameters\['no'\]\}\} cannot be filled in",
        ),
        (
            f"{CONTAINER}.args",
            ["{{$.inputs.artifacts['no'].path}}"],
            r"artifacts\['no'\].path\}\} names an artifact it does not have",
        ),
    ],
)
def test_what_cannot_be_run_here_is_refused_by_name(path, value, message):
    with pytest.raises(ValueError, match=message):
        read_tasks(changed(path, value), {"who": "x"})


def test_missing_parameter_of_a_task_is_refused():
    document = changed(f"{MAKE}.inputs.parameters", {})
    with pytest.raises(ValueError, match="task make-it needs a value for its parameter name"):
        read_tasks(document, {"who": "x"})


def test_command_of_something_else_is_refused(tmp_path):
    document = changed("deploymentSpec.executors.exec-make.container.command", ["rm", "-r"])
    with pytest.raises(ValueError, match=r"task make_it runs rm -r .*only `python -m components"):
        local.run_pipeline(document, {"who": "x"}, folder=tmp_path, launcher=ProcessLauncher())


DECLARED = {
    "root": {
        "inputDefinitions": {
            "parameters": {
                "name": {"parameterType": "STRING"},
                "count": {"parameterType": "NUMBER_INTEGER"},
                "rate": {"parameterType": "NUMBER_DOUBLE"},
                "fast": {"parameterType": "BOOLEAN"},
                "workers": {"parameterType": "LIST"},
            }
        }
    }
}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("name=lr=1e-4 epochs=3", "lr=1e-4 epochs=3"),
        ("name=", ""),
        ("count=-3", -3),
        ("rate=1e-3", 0.001),
        ("rate=2", 2),
        ("fast=true", True),
        ('workers=["0/2","1/2"]', ["0/2", "1/2"]),
    ],
)
def test_argument_is_read_by_its_declared_type(word, value):
    name, found = parse_argument(word, DECLARED)
    assert name == word.partition("=")[0]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("count", "'count' is not of the form name=value"),
        ("coutn=3", "no parameter 'coutn'; did you mean 'count'. there are name, count, rate"),
        ("count=3.5", "parameter count: '3.5' is not a whole number"),
        ("count=true", "parameter count: 'true' is not a whole number"),
        ("count=three", "parameter count: 'three' is not a whole number"),
        ("rate=fast", "parameter rate: 'fast' is not a number"),
        ("fast=True", "parameter fast: 'True' is not true or false"),
        ("workers=0/2", "parameter workers: '0/2' is not a list, such as"),
    ],
)
def test_wrong_argument_is_refused(word, message):
    with pytest.raises(ValueError, match=message):
        parse_argument(word, DECLARED)


def test_unknown_name_lists_what_exists():
    assert suggestion("dem", ["demo", "market1501"]) == (
        "; did you mean 'demo'? there are demo, market1501"
    )
    assert suggestion("xyz", ["demo"]) == "; there are demo"


def test_a_parameter_that_is_given_twice_is_refused():
    assert parse_arguments(["count=1", "name=a=b"], DECLARED) == {"count": 1, "name": "a=b"}
    with pytest.raises(ValueError, match="parameter count is given twice"):
        parse_arguments(["count=1", "name=x", "count=1"], DECLARED)
