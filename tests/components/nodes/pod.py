"""The command of a pod that follows nodes, a process that runs it, and the role of its account."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from components.command.code import ROOT
from components.kubeflow.nodes.train_job import train_job_template
from components.nodes import api
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


# The command in a process of its own, with the account of the tests.
_PROGRAM = """
import sys
from pathlib import Path
from components.__main__ import main
from components.nodes import api, follow, on_nodes
from components.process import messages
api.SERVICE_ACCOUNT, messages.TERMINATION_LOG = map(Path, sys.argv[1:3])
follow.SECONDS_BETWEEN_LOOKS, on_nodes.SECONDS_BETWEEN_LOOKS = float(sys.argv[3]), 0.01
sys.exit(main(sys.argv[4:]))
"""


class Attempt:
    """A process that runs the command as a pod does.

    Attributes:
        process: the process.
        folder: holds its log and its termination message.
    """

    def __init__(
        self, pod: str, folder: Path, given: list[str], *, seconds_between_looks: float
    ) -> None:
        self.folder = folder / pod
        self.folder.mkdir()
        (self.folder / "words").touch()
        own = [str(api.SERVICE_ACCOUNT), str(self.folder / "words"), str(seconds_between_looks)]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *own, *given],
                env={**os.environ, "HOSTNAME": pod},
                cwd=ROOT,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def last_words(self) -> str:
        return (self.folder / "words").read_text()

    def stop(self) -> int:
        """Stop it by SIGTERM; returns its exit status."""
        self.process.terminate()
        return self.process.wait(300)


@contextlib.contextmanager
def attempt(
    pod: str, folder: Path, given: list[str], *, seconds_between_looks: float = 0.05
) -> Iterator[Attempt]:
    """An attempt, which is killed when the block ends."""
    made = Attempt(pod, folder, given, seconds_between_looks=seconds_between_looks)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
