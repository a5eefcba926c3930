"""docker/images.sh: what it has docker build, tag and push; the engine is made up."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("cpu", "gpu", "onnx")
ENGINE = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case $1 in
push) exit "${PUSH_STATUS:-0}" ;;
image) echo "other.example/san-pipeline@sha256:0"
       echo "${3%%:*}@sha256:${3##*:}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one commit."""
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "images.sh", tmp_path / "docker")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def images(checkout, tmp_path_factory):
    """Run the script; what it did and what it told docker."""
    place = tmp_path_factory.mktemp("bin")
    (place / "docker").write_text(ENGINE)
    (place / "docker").chmod(0o755)

    def run(*words, **environment):
        calls = place / "calls"
        calls.unlink(missing_ok=True)
        ours = ("PIP_", "TORCH_", "BASE_IMAGE", "IMAGE_NAME")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        path = f"{place}:{os.environ['PATH']}"
        done = subprocess.run(
            [checkout / "docker" / "images.sh", *words],
            env={**clean, "PATH": path, "CALLS": str(calls), **environment},
            capture_output=True,
            text=True,
        )
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


def commit_of(checkout):
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=checkout, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_all_targets_are_built_and_labelled_with_the_commit(images, checkout):
    done, calls = images("build")
    commit = commit_of(checkout)
    assert done.stdout.split() == [f"san-pipeline:{t}-{commit}" for t in TARGETS]
    for target, call in zip(TARGETS, calls, strict=True):
        assert f"--target {target} " in call
        assert f"--build-arg COMMIT={commit} " in call
        assert f"-t san-pipeline:{target} -t san-pipeline:{target}-{commit} ." in call
        assert "BASE_IMAGE" not in call


def test_base_image_and_package_index_are_handed_on_by_name(images):
    _, (call,) = images("build", "cpu", BASE_IMAGE="base:1", PIP_INDEX_URL="http://me:key@index")
    assert "--build-arg BASE_IMAGE --build-arg PIP_INDEX_URL --build-arg VERSION" in call
    assert "key@" not in call


def test_cuda_of_torch_is_handed_on(images):
    _, (call,) = images("build", "gpu", TORCH_CUDA="cu126")
    assert "--build-arg TORCH_CUDA --build-arg VERSION" in call


@pytest.mark.parametrize("target", TARGETS)
def test_no_argument_with_credentials_gets_into_the_history_of_an_image(target):
    """Arguments stay in the history of their own stage and of those that are built on it."""
    arguments = {}
    text = (ROOT / "docker" / "Dockerfile").read_text()
    for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        base, name = re.match(r"(\S+) AS (\S+)", stage).groups()
        own = re.findall(r"^ARG (\w+)", stage, re.MULTILINE)
        arguments[name] = [*arguments.get(base, []), *own]
    assert arguments[target] == ["VERSION", "COMMIT"]
    assert "PIP_INDEX_URL" in arguments[f"{target}-packages"]


def test_packages_lie_in_an_environment_of_the_base_images_own_python():
    """Where Debian's and conda's Python look for packages is not where python.org's does."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY --from=\w+-packages \S+ (\S+)$", text, re.MULTILINE)
    assert copied == ["/opt/san"] * 3
    for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        base, name = re.match(r"(\S+) AS (\S+)", stage).groups()
        if base == "${BASE_IMAGE}" and name != "requirements":
            assert "ENV PATH=/opt/san/bin:${PATH}" in stage, name


def test_compiler_of_the_kernels_is_pinned():
    text = (ROOT / "docker" / "Dockerfile").read_text()
    assert "pip wheel --no-cache-dir --no-deps --no-build-isolation" in text
    pins = (ROOT / "constraints.txt").read_text().lower()
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for one in requires:
        assert re.search(rf"^{re.match(r'[a-z]+', one)[0]}==", pins, re.MULTILINE), one
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    builds = [line for line in makefile.splitlines() if " -e '.[" in line.replace("\t", " ")]
    assert len(builds) == 2
    assert all("--no-build-isolation" in line for line in builds)


def test_images_may_have_another_name(images, checkout):
    done, _ = images("build", "cpu", IMAGE_NAME="mine", NAME="a-machine")
    assert done.stdout == f"mine:cpu-{commit_of(checkout)}\n"


def test_push_names_images_by_commit_and_prints_their_digests(images, checkout):
    done, calls = images("push", "registry.example/p")
    commit = commit_of(checkout)
    there = [f"registry.example/p/san-pipeline:{t}-{commit}" for t in TARGETS]
    assert [call for call in calls if call.startswith("push")] == [
        f"push --quiet {t}" for t in there
    ]
    by_tag, _, by_digest = done.stdout.splitlines()
    assert by_tag == f"--image 'registry.example/p/san-pipeline:{{target}}-{commit}'"
    digests = [f"{t}=registry.example/p/san-pipeline@sha256:{t}-{commit}" for t in ("cpu", "gpu")]
    assert by_digest == f"--image '{','.join(digests)}'"


@pytest.mark.parametrize("changed", ["pyproject.toml", "components/new.py"])
def test_changes_that_no_commit_holds_are_not_pushed(images, checkout, changed):
    (checkout / "components").mkdir()
    (checkout / changed).write_text("changed")
    done, calls = images("push", "registry.example/p")
    assert (done.returncode, calls) == (1, [])
    assert done.stderr.startswith("images.sh: commit first: ")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["push", ""], 2, "images.sh: name a registry: make push REGISTRY="),
        ([], 2, "images.sh: usage: "),
        (["push", "r.example"], 1, "images.sh: r.example/san-pipeline:cpu-"),
    ],
)
def test_what_cannot_be_done_is_one_line(images, words, status, message):
    done, _ = images(*words, PUSH_STATUS="1")
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)
