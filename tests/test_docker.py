"""The images, built and run: `make test-docker`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from san_core.imageset import ImageSet

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[1]
PYTHON = ("python", "-m", "components")
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")


@pytest.fixture(scope="session")
def cpu_image():
    """The cpu target, built from this checkout."""
    arguments = {"BASE_IMAGE": os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")}
    arguments |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    options = [word for k, v in arguments.items() for word in ("--build-arg", f"{k}={v}")]
    tag = "san-pipeline:test-cpu"
    command = ["docker", "build", "-q", "-f", "docker/Dockerfile", "--target", "cpu", "-t", tag]
    subprocess.run([*command, *options, "."], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return tag


def _run(image, folder, *words):
    folder.chmod(0o777)
    return subprocess.run(
        [*["docker", "run", "--rm", "-v"], f"{folder}:/data", image, *PYTHON, *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_step_runs_alone_as_an_ordinary_user(cpu_image, tmp_path):
    words = ["make_pit", "--pit", "/data/pit", "--textures", "3", "--meshes", "2"]
    done = _run(cpu_image, tmp_path, *words, "--image-height", "64", "--texture-size", "32")
    assert done.returncode == 0, done.stderr
    images = ImageSet.open(tmp_path / "pit" / "images")
    images.verify()
    assert len(images.records) == 6
    assert (tmp_path / "pit" / "images" / "manifest.json").stat().st_uid == 1000


def test_wrong_input_ends_in_one_line(cpu_image, tmp_path):
    done = _run(cpu_image, tmp_path, "prepare_reid", "--reid", "/data/reid", "--dataset", "nope")
    assert done.returncode == 1
    assert "prepare_reid: no data set 'nope'; there are synthetic, market1501" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.s3
def test_a_step_in_a_container_gives_its_artifact_to_a_bucket(cpu_image, s3, s3_server):
    """As docker/compose.yaml runs it; here the server is on the host's loopback."""
    keys = [f"--env={name}={value}" for name, value in s3_server.environment.items()]
    run = ["docker", "run", "--rm", "--network=host", *keys, cpu_image, *PYTHON]
    made = [*("make_pit", "--pit", f"{s3}/pit", "--textures", "3", "--meshes", "2")]
    made += ["--image-height", "64", "--texture-size", "32"]
    done = subprocess.run([*run, *made], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    looked = [*run, "imageset", "verify", f"{s3}/pit/images"]
    done = subprocess.run(looked, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("whole: 6 images in 1 shards"), done.stderr


def test_image_has_no_entrypoint_and_no_torch(cpu_image):
    inspected = subprocess.run(
        ["docker", "image", "inspect", cpu_image], capture_output=True, check=True
    )
    (description,) = json.loads(inspected.stdout)
    assert not description["Config"]["Entrypoint"]
    assert description["Size"] <= 700 * 2**20
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    words = ["docker", "run", "--rm", cpu_image, "python", "-c", code]
    assert subprocess.run(words, check=False).returncode == 0
