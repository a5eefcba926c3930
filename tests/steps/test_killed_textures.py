"""Generating textures into a bucket while workers and the server are killed at any moment."""

import random
import threading
import time
from pathlib import Path

import pytest

from components.__main__ import main
from components.storage.places import open_storage
from san_core.images.imageset import parse_manifest
from tests.conftest import kill_all_of
from tests.servers.seaweedfs import BUCKET, running_server
from tests.steps.forked_lives import Life
from tests.steps.test_textures_in_buckets import objects
from tests.tiny import step_command, with_flags, with_outputs_in

pytestmark = [pytest.mark.s3, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SHARD = "2"  # 24 images make 12 units, so that most kills hit one in the middle


@pytest.fixture
def generate(tiny, tmp_path):
    return with_flags(
        with_outputs_in(step_command("generate_textures", tiny), tmp_path), shard_size=SHARD
    )


@pytest.fixture
def seal(tiny, tmp_path):
    return with_flags(
        with_outputs_in(step_command("seal_textures", tiny), tmp_path), shard_size=SHARD
    )


@pytest.fixture
def undisturbed(tiny, tmp_path, start_component, generate, seal):
    """The objects that an undisturbed worker makes, and the time it took.

    It is made in a folder: that a bucket holds what a folder holds is tested elsewhere.
    """
    folder = str(tmp_path / "undisturbed")
    process = start_component(
        with_flags(with_outputs_in(generate, tmp_path / "u"), destination=folder)
    )
    _wait_for_work(process)
    started = time.monotonic()
    _, err = process.communicate(timeout=300)
    took = time.monotonic() - started
    assert process.returncode == 0, err
    assert main(with_flags(with_outputs_in(seal, tmp_path / "u"), destination=folder)) == 0
    return objects(folder), took


def _wait_for_work(process):
    """Wait until the worker logs its work, or ends because nothing is left."""
    for line in process.stderr:
        if "to make: " in line:
            return


def _check(uri, expected):
    """Check the objects in the bucket, and that all files of the manifest exist."""
    found = objects(uri)
    assert found == expected
    manifest = parse_manifest(found["manifest.json"], where=uri)
    assert len(manifest["shards"]) == 12
    for shard in manifest["shards"]:
        assert len(found[shard["tar"]]) == shard["size"]
        assert len(found[shard["sidecar"]]) == shard["sidecar_size"]


@pytest.fixture
def live(tmp_path):
    """A life of a command; those that still run when the test ends are killed."""
    lives = []

    def live(command):
        lives.append(Life(command, tmp_path / f"life-{len(lives)}.txt"))
        return lives[-1]

    yield live
    for life in lives:
        life.kill()


def test_worker_killed_at_20_random_moments_loses_nothing(live, generate, seal, undisturbed, s3):
    """Up to five lives for each bucket folder, then one to the end, until 20 have been killed."""
    expected, took = undisturbed
    moments = random.Random(0)
    killed = rounds = 0
    while killed < 20:
        rounds += 1
        assert rounds <= 20, "workers end before they are killed"
        uri = f"{s3}/{rounds}"
        for _ in range(min(5, 20 - killed)):
            life = live(with_flags(generate, destination=uri))
            if not life.wait_until_it_says("to make: "):
                break  # all is made
            moment = moments.uniform(0, took)
            time.sleep(moment)
            if not life.kill():
                took = moment  # the machine has become quicker since it was timed
                break
            killed += 1
        status, said = live(with_flags(generate, destination=uri)).end(seconds=300)
        assert status == 0, said
        assert main(with_flags(seal, destination=uri, verify="sha256", prune="true")) == 0
        _check(uri, expected)


def test_many_short_lives_add_up_to_the_whole(start_component, generate, seal, undisturbed, s3):
    """Every worker is killed once it has finished one unit more; no life reaches the end."""
    expected, _ = undisturbed
    storage = open_storage(s3)
    lives = 0
    while (done := _sidecars(storage)) < 12:
        lives += 1
        process = start_component(with_flags(generate, destination=s3))
        while process.poll() is None and _sidecars(storage) <= done:
            time.sleep(0.01)
        kill_all_of(process)
        assert lives <= 12
    assert main(with_flags(seal, destination=s3, prune="true")) == 0
    _check(s3, expected)
    assert lives >= 3


def _sidecars(storage):
    return sum(s.name.endswith(".json") and "/shards/" in s.name for s in storage.list())


def test_overlapping_workers_on_the_same_units_do_no_harm(
    start_component, generate, seal, undisturbed, s3, tmp_path
):
    """Kubernetes may start a pod's successor before the pod is gone, and kill either."""
    expected, took = undisturbed
    started = [
        start_component(with_outputs_in(with_flags(generate, destination=s3), tmp_path / str(i)))
        for i in range(3)
    ]
    time.sleep(0.85 * took)
    kill_all_of(started.pop())
    for process in started:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert main(with_flags(seal, destination=s3, verify="sha256", prune="true")) == 0
    _check(s3, expected)


def test_sigterm_ends_a_worker_soon_and_the_next_goes_on(
    start_component, generate, seal, undisturbed, s3
):
    expected, _ = undisturbed
    storage = open_storage(s3)
    process = start_component(with_flags(generate, destination=s3))
    while process.poll() is None and not _sidecars(storage):
        time.sleep(0.01)
    process.terminate()
    started = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert time.monotonic() - started < 10
    assert 1 <= _sidecars(storage) < 12
    assert main(with_flags(generate, destination=s3)) == 0
    assert main(with_flags(seal, destination=s3, prune="true")) == 0
    _check(s3, expected)


@pytest.mark.usefixtures("isolated_environment")
def test_server_killed_and_restarted_is_waited_for(
    start_component, generate, seal, undisturbed, tmp_path, monkeypatch
):
    expected, _ = undisturbed
    with running_server(tmp_path / "server" / "data") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        uri = f"s3://{BUCKET}/textures"
        storage = open_storage(uri)
        process = start_component(with_flags(generate, destination=uri))
        while process.poll() is None and not _sidecars(storage):
            time.sleep(0.01)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
        reader.start()
        for _ in range(3):
            server.kill()
            time.sleep(1.5)
            server.start()
            time.sleep(0.5)
        assert process.wait(timeout=300) == 0, "".join(lines)
        reader.join(timeout=10)
        process.stderr.close()
        assert "trying again" in "".join(lines)
        assert main(with_flags(seal, destination=uri, verify="sha256", prune="true")) == 0
        _check(uri, expected)
