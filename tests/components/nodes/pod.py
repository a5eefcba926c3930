"""The command of a pod that follows nodes, and the role of its account."""

import json
import re
from pathlib import Path

import yaml

from components.command.code import ROOT
from components.kubeflow.nodes.train_job import train_job_template
from tests.write_golden import asked

RUN = "0a1b2c3d-0000-4000-8000-000000000001"


def documented_manifests() -> list[dict]:
    """The role and its binding as docker/README.md has them."""
    text = (ROOT / "docker" / "README.md").read_text("utf-8")
    (found,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return list(yaml.safe_load_all(found))


def documented_rules() -> list[dict]:
    return documented_manifests()[0]["rules"]


def template(*words: str, gpus: int = 4) -> dict:
    """The TrainJob of train_san on two nodes, as the compiled pipeline holds it."""
    cluster = asked("--nodes", "train_san=2", "--gpus", f"train_san={gpus}", *words)
    return train_job_template(cluster, "train_san", "registry/san:gpu-1")


def words(root: str, folder: Path, *more: str, job: dict | None = None) -> list[str]:
    """The words of the pod's command, as KFP fills them in."""
    outputs = {"model": "Model", "training_page": "HTML", "losses": "Metrics", "events": "Artifact"}
    of_task = f"{root}/san-full/{RUN}/train-san/0a1b2c3d-0000-4000-8000-0000000000ff"
    executor_input = {
        "inputs": {"artifacts": {"dataset": {"artifacts": [{"uri": f"{root}/reid"}]}}},
        "outputs": {
            "outputFile": str(folder / "executor_output.json"),
            "artifacts": {
                name: {
                    "artifacts": [
                        {"uri": f"{of_task}/{name}", "type": {"schemaTitle": f"system.{kind}"}}
                    ]
                }
                for name, kind in outputs.items()
            },
        },
    }
    given = [word for name in outputs for word in (f"--{name.replace('_', '-')}", folder / name)]
    return [
        *("on_nodes", "--job", json.dumps(job or template()), "train_san"),
        *("--executor-input", json.dumps(executor_input), "--dataset", str(folder / "reid")),
        *(*map(str, given), "--recipe", "demo-baseline", *more),
    ]
