"""The images, built and run: `make test-docker`."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from components.__main__ import STEPS, main
from components.kubeflow.component import step_component
from components.launch.presets import PRESETS
from san_core.images.imageset import ImageSet
from san_core.model.saved import fingerprint
from san_core.shipped.generator import SHIPPED_FOLDER
from tests.servers.seaweedfs import ACCESS_KEY
from tests.tiny import SAN_OVERRIDES, file_contents, step_command, with_flags, with_outputs_in

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
PYTHON = ("python", "-m", "components")
NAME = "san-pipeline-test"
MIB = 2**20
# The preset `demo` at the smallest size that still does everything.
SMALL = {
    "identities": "12",
    "image_height": "64",
    "pit_textures": "8",
    "pit_meshes": "2",
    "pg_overrides": "epochs=2 batch_size=8 warmup_epochs=0",
    "san_overrides": SAN_OVERRIDES,
}
PARAMS = [word for name, value in SMALL.items() for word in ("--param", f"{name}={value}")]


def _build(target):
    done = subprocess.run(
        [ROOT / "docker" / "images.sh", "build", target],
        env={**os.environ, "IMAGE_NAME": NAME},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _docker("rmi", done.stdout.strip())  # the name with the commit; else every commit leaves one
    return f"{NAME}:{target}"


@pytest.fixture(scope="session")
def cpu_image():
    """The cpu target, built from this checkout."""
    return _build("cpu")


@pytest.fixture(scope="session")
def gpu_image():
    """The gpu target, built from this checkout."""
    return _build("gpu")


@pytest.fixture(scope="session")
def onnx_image():
    """The onnx target, built from this checkout."""
    return _build("onnx")


def _docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def _run(image, folder, *command, options=()):
    folder.chmod(0o777)
    return _docker("run", "--rm", "-v", f"{folder}:/data", *options, image, *PYTHON, *command)


def _pipeline(folder, *arguments, **environment):
    """`pipeline.py run` of the small demo, with its results under `folder`."""
    command = [sys.executable, "pipeline.py", "run", "--preset", "demo", "--runs", str(folder)]
    return subprocess.run(
        [*command, "--name", "demo", *PARAMS, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _only_line(done, status):
    """The one line of a failure; what a step logs before it begins with the time."""
    assert done.returncode == status, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line))
    return line


def test_a_step_runs_alone_as_an_ordinary_user(cpu_image, tmp_path):
    command = ["make_pit", "--pit", "/data/pit", "--textures", "3", "--meshes", "2"]
    done = _run(cpu_image, tmp_path, *command, "--image-height", "64", "--texture-size", "32")
    assert done.returncode == 0, done.stderr
    images = ImageSet.open(tmp_path / "pit" / "images")
    images.verify()
    assert len(images.records) == 6
    assert (tmp_path / "pit" / "images" / "manifest.json").stat().st_uid == 1000


def test_the_onnx_image_searches_by_exported_models(onnx_image, tiny, tmp_path):
    assert main(["export", "--model", tiny.model, "--onnx", str(tmp_path / "reid.onnx")]) == 0
    shown = ["--split", "query", "--output", str(tmp_path / "crops")]
    assert main(["imageset", "extract", tiny.reid, *shown]) == 0
    words = ["--model", "/data/reid.onnx", "--gallery", "/data/crops", "--query", "/data/crops"]
    done = _run(onnx_image, tmp_path, "search", *words, "--output", "/data/found")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found" / "ranked.csv").read_text().startswith("query,rank,image,distance")
    assert list((tmp_path / "crops.features").iterdir())


def test_the_onnx_image_embeds_and_makes_textures_by_exported_models(onnx_image, tiny, tmp_path):
    for name, model in (("reid", tiny.model), ("pg", tiny.generator)):
        assert main(["export", "--model", model, "--onnx", str(tmp_path / f"{name}.onnx")]) == 0
    tiny.root.chmod(0o755)
    data = [f"--volume={tiny.root}:{tiny.root}:ro"]
    embed = with_flags(
        step_command("extract_features", tiny),
        model="/data/reid.onnx",
        features="/data/features",
        references="false",
    )
    done = _run(onnx_image, tmp_path, *embed, options=data)
    assert done.returncode == 0, done.stderr
    found, expected = (
        np.load(Path(place, "features.npy")) for place in (tmp_path / "features", tiny.features)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    generate = with_flags(
        step_command("generate_textures", tiny),
        generator="/data/pg.onnx",
        destination="/data/kept",
        written="/data/written",
    )
    done = _run(onnx_image, tmp_path, *generate, options=data)
    assert done.returncode == 0, done.stderr
    made, of_torch = (
        {path.name.split(".")[0] for path in Path(place).rglob("*.tar")}
        for place in (tmp_path / "kept", tiny.destination)
    )
    assert made == of_torch != set()


def test_the_onnx_image_is_small_and_has_no_torch(onnx_image):
    found = _docker("run", "--rm", onnx_image, "python", "-c", "import torch")
    assert "No module named 'torch'" in found.stderr
    size = int(_docker("image", "inspect", onnx_image, "--format", "{{.Size}}").stdout)
    assert size <= 800 * MIB


def test_the_cpu_image_has_the_generator_that_ships(cpu_image, tmp_path):
    done = _run(cpu_image, tmp_path, "take_generator", "--generator", "/data/generator")
    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / "generator") == fingerprint(SHIPPED_FOLDER)


def _run_line_of_readme(target, image, folder):
    """Run the line of docker/README.md for an image; its results are under `folder`."""
    text = (ROOT / "docker" / "README.md").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("    docker run --rm -v")]
    (line,) = (line for line in lines if f" san-pipeline:{target} " in line)
    command = shlex.split(line.replace("$PWD", str(folder)))
    command[command.index(f"san-pipeline:{target}")] = image
    (folder / "data").chmod(0o777)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_line_of_the_readme_searches(onnx_image, tiny, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    assert main(["export", "--model", tiny.model, "--onnx", str(data / "encoder.onnx")]) == 0
    shown = ["--split", "query", "--output", str(data / "photographs")]
    assert main(["imageset", "extract", tiny.reid, *shown]) == 0
    person = next(path for path in (data / "photographs").rglob("*") if path.is_file())
    shutil.copyfile(person, data / "person.jpg")
    _run_line_of_readme("onnx", onnx_image, tmp_path)
    assert (data / "search" / "ranked.csv").read_text().startswith("query,rank,image,distance")


def test_line_of_the_readme_runs_one_step(cpu_image, tmp_path):
    (tmp_path / "data").mkdir()
    _run_line_of_readme("cpu", cpu_image, tmp_path)
    assert len(ImageSet.open(tmp_path / "data" / "pit" / "images").records) == 50 * 4


@pytest.mark.parametrize("image", ["cpu_image", "gpu_image", "onnx_image"])
def test_image_is_labelled_and_has_no_entrypoint(request, image):
    done = _docker("image", "inspect", request.getfixturevalue(image))
    (description,) = json.loads(done.stdout)
    config = description["Config"]
    assert not config["Entrypoint"]
    assert config["User"] == "1000"
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    labels = config["Labels"]
    assert commit.startswith(labels["org.opencontainers.image.revision"].removesuffix("-dirty"))
    assert labels["org.opencontainers.image.version"] == _version()


def _version():
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if line.startswith("version = "):
            return line.split('"')[1]
    raise AssertionError("pyproject.toml names no version")


def test_cpu_image_is_small_and_has_no_torch(cpu_image):
    (description,) = json.loads(_docker("image", "inspect", cpu_image).stdout)
    assert description["Size"] <= 500 * MIB
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    assert _docker("run", "--rm", cpu_image, "python", "-c", code).returncode == 0


def test_gpu_image_has_what_every_step_needs(gpu_image):
    code = "import onnxruntime, torch, torchvision; assert torch.version.cuda; torch.ones(1) + 1"
    code += "; from components.training.compiler import check_compiler"
    code += "; [check_compiler(torch.device(kind)) for kind in ('cpu', 'cuda')]"
    code += "; torch.compile(lambda x: x.sin() + 1)(torch.ones(8))"
    done = _docker("run", "--rm", gpu_image, "python", "-c", code)
    assert done.returncode == 0, done.stderr


def test_wrong_input_ends_in_one_line(cpu_image, tmp_path):
    done = _run(cpu_image, tmp_path, "prepare_reid", "--reid", "/data/reid", "--dataset", "nope")
    line = _only_line(done, 1)
    assert line.startswith("prepare_reid: no data set 'nope'; there are synthetic, market1501")


def test_full_disk_ends_in_one_line(cpu_image):
    small = "--tmpfs=/small:size=200k,uid=1000"
    made = ["make_pit", "--pit", "/small/pit", "--textures", "20", "--meshes", "2"]
    line = _only_line(_docker("run", "--rm", small, cpu_image, *PYTHON, *made), 1)
    assert re.fullmatch(r"make_pit: /small/pit.*: no space left \(.*has [\d.]+ [kM]B\)", line)


def test_stopped_container_ends_in_one_line(cpu_image):
    started = _docker("run", "-d", cpu_image, *PYTHON, "make_pit", "--pit", "/tmp/pit")
    container = started.stdout.strip()
    try:
        _wait_for(lambda: "images" in _docker("exec", container, "ls", "-aR", "/tmp").stdout)
        _docker("stop", container)
        logs = _docker("logs", container)
        status = _docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
    finally:
        _docker("rm", "-f", container)
    assert status == "143"
    assert logs.stderr.splitlines()[-1] == "make_pit: stopped by SIGTERM"


def _wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def _in_bucket(image, environment, *command):
    keys = [f"--env={name}={value}" for name, value in environment.items()]
    return _docker("run", "--rm", "--network=host", *keys, image, *PYTHON, *command)


@pytest.mark.s3
def test_a_step_in_a_container_gives_its_artifact_to_a_bucket(cpu_image, s3, s3_server):
    """As docker/compose.yaml runs it; here the server is on the host's loopback."""
    made = [*("make_pit", "--pit", f"{s3}/pit", "--textures", "3", "--meshes", "2")]
    made += ["--image-height", "64", "--texture-size", "32"]
    done = _in_bucket(cpu_image, s3_server.environment, *made)
    assert done.returncode == 0, done.stderr
    looked = ["imageset", "verify", f"{s3}/pit/images"]
    done = _in_bucket(cpu_image, s3_server.environment, *looked)
    assert done.stdout.startswith("whole: 6 images in 1 shards"), done.stderr


@pytest.mark.s3
@pytest.mark.parametrize(
    "wrong", [{"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, {"AWS_ACCESS_KEY_ID": "nobody"}]
)
def test_wrong_secret_ends_in_one_line(cpu_image, s3, s3_server, wrong):
    made = ["make_pit", "--pit", f"{s3}/pit", "--textures", "3", "--meshes", "2"]
    line = _only_line(_in_bucket(cpu_image, {**s3_server.environment, **wrong}, *made), 1)
    assert line.startswith("make_pit: ")
    assert s3 in line
    assert "wrong-secret" not in line


@pytest.mark.s3
def test_missing_secret_ends_in_one_line(cpu_image, s3, s3_server):
    made = ["make_pit", "--pit", f"{s3}/pit", "--textures", "3", "--meshes", "2"]
    without = {k: v for k, v in s3_server.environment.items() if "KEY" not in k}
    line = _only_line(_in_bucket(cpu_image, without, *made), 1)
    assert line.startswith("make_pit: ")
    assert ACCESS_KEY not in line


def _features(folder):
    (found,) = folder.rglob("features/features.npy")
    return file_contents(found.parent)


def test_pipeline_in_containers_gives_the_features_it_gives_in_processes(
    cpu_image, gpu_image, tmp_path
):
    image = ["--runner", "docker", "--image", f"{NAME}:{{target}}"]
    done = _pipeline(tmp_path / "docker", *image)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "evaluate: " in done.stdout
    assert "rank1" in done.stdout
    run = tmp_path / "docker" / "demo"
    assert (run / "evaluate" / "report_page.html").read_text().startswith("<!DOCTYPE html>")
    written = (run / "evaluate" / "report").rglob("*")
    assert {path.stat().st_uid for path in written} == {os.getuid() or 1000}

    done = _pipeline(tmp_path / "docker", *image)
    steps = [line for line in done.stdout.splitlines() if " ... " in line]
    assert len(steps) > 8
    assert all(line.endswith(" ... skipped (unchanged)") for line in steps)

    done = _pipeline(tmp_path / "process")
    assert done.returncode == 0, done.stderr
    assert _features(tmp_path / "docker") == _features(tmp_path / "process")


def test_failing_step_in_a_container_ends_the_run_in_one_line(cpu_image, gpu_image, tmp_path):
    image = ["--runner", "docker", "--image", f"{NAME}:{{target}}"]
    # a size that the network cannot reach: found by the step itself
    done = _pipeline(tmp_path, *image, "--param", "pg_overrides=texture_size=24")
    assert done.returncode == 1
    first, *rest = done.stderr.splitlines()
    assert first.startswith("pipeline.py: train_san_pg failed with exit code 1: ")
    assert "texture_size 24" in first
    assert len(rest) == 2
    assert Path(rest[0].removeprefix("  log: ")).is_file()


def test_killed_container_ends_the_run_in_one_line(cpu_image, gpu_image, tmp_path):
    label = f"label=san-pipeline.run={tmp_path / 'demo'}"
    killed = []

    def kill():
        _wait_for(lambda: _docker("ps", "-q", "--filter", label).stdout)
        container = _docker("ps", "-q", "--filter", label).stdout.split()[0]
        killed.append(_docker("kill", container).returncode)

    killer = threading.Thread(target=kill)
    killer.start()
    image = ["--runner", "docker", "--image", f"{NAME}:{{target}}"]
    done = _pipeline(tmp_path, *image, "--param", "pit_textures=900")
    killer.join()
    assert killed == [0]
    assert done.returncode == 1
    first, *_ = done.stderr.splitlines()
    assert " was killed by SIGKILL" in first
    assert "Traceback" not in done.stderr
    assert _docker("ps", "-aq", "--filter", label).stdout == ""


def test_interrupted_run_leaves_no_container(cpu_image, gpu_image, tmp_path):
    label = f"label=san-pipeline.run={tmp_path / 'demo'}"
    command = [sys.executable, "pipeline.py", "run", "--preset", "demo", "--runs", str(tmp_path)]
    command += [*PARAMS, "--runner", "docker", "--image", f"{NAME}:{{target}}"]
    run = subprocess.Popen(
        [*command, "--param", "pit_textures=900"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    _wait_for(lambda: _docker("ps", "-q", "--filter", label).stdout)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert (run.returncode, said) == (
        130,
        "pipeline.py: stopped; the same command continues from here\n",
    )
    assert _docker("ps", "-aq", "--filter", label).stdout == ""


def test_places_of_packages_stay_out_of_the_images_history(cpu_image):
    history = _docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", cpu_image).stdout
    assert "pip install" in history
    assert "INDEX_URL=" not in history
    left = _docker("run", "--rm", cpu_image, "ls", "/run/secrets").stdout.split()
    assert left == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("san-nowhere:{target}", "there is no image san-nowhere:cpu here; `make images` builds it"),
        ("localhost:1/san:{target}-1", "image localhost:1/san:cpu-1 is missing and cannot be pul"),
    ],
)
def test_missing_image_ends_in_one_line_before_the_first_step(tmp_path, image, message):
    line = _only_line(_pipeline(tmp_path, "--runner", "docker", "--image", image), 1)
    assert line.startswith(f"pipeline.py: {message}")


def test_two_processes_of_one_container_train_one_model(gpu_image, tiny, tmp_path):
    """As more than one GPU is used in a pod; here the processes are joined by gloo."""
    step = step_component(STEPS["train_san"], gpu_image, processes=2)
    command = step.component_spec.implementation.container.command
    for folder, mode in ((tiny.root, 0o755), (tmp_path, 0o777)):
        folder.chmod(mode)
    mounts = [f"--volume={tiny.root}:{tiny.root}:ro", f"--volume={tmp_path}:{tmp_path}"]
    one_thread = ["--env=OMP_NUM_THREADS=1", "--env=SAN_CACHE=/tmp/cache"]
    arguments = with_outputs_in(step_command("train_san", tiny), tmp_path)[1:]
    done = _docker("run", "--rm", *mounts, *one_thread, gpu_image, *command, *arguments)
    assert done.returncode == 0, done.stderr
    assert set(file_contents(tmp_path / "model")) == set(file_contents(tiny.root / "model"))
    alone = json.loads((tiny.root / "train_san.json").read_bytes())
    together = json.loads((tmp_path / "metrics").read_bytes())
    assert together["epoch"] == alone["epoch"]
    assert together["loss"] == pytest.approx(alone["loss"], rel=0.1)


def test_presets_of_the_container_tests_exist():
    assert PRESETS["demo"].graph == "full"
    assert set(SMALL) - {"pg_overrides", "san_overrides"} <= set(PRESETS["demo"].values)
