"""Synthetic data sets: the same bytes in any order, apart in identities, named as Market-1501."""

import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from san_core.images.pixels import decode, encode_jpeg
from san_core.synthesis import dataset, workers
from san_core.synthesis.camera.camera import SCENES_PER_CAMERA, Sensor, make_camera
from san_core.synthesis.camera.render import draw_mesh
from san_core.synthesis.dataset import make_pit_identity, make_reid_identity, reid_texture
from san_core.synthesis.difficulty import DIFFICULTIES, difficulty_by_name
from san_core.synthesis.person.body import current_body
from san_core.synthesis.spec import PitSpec, ReidSpec, held_out_identities
from san_core.synthesis.wardrobe.painter import paint_outfit
from san_core.synthesis.workers import map_identities

SMALL = (64, 32)
PIT = PitSpec(seed=5, identities=5, meshes=2, image_size=SMALL, texture_size=64, held_out=0.4)
REID = ReidSpec(seed=5, train_identities=2, test_identities=2, cameras=2, shots=2, image_size=SMALL)
# Of Torchreid and most code that reads Market-1501.
MARKET_NAME = re.compile(r"([-\d]+)_c(\d)s\d_\d{6}_\d{2}\.jpg")


@pytest.fixture(scope="module")
def pit():
    return [make_pit_identity(PIT, identity) for identity in range(PIT.identities)]


@pytest.fixture(scope="module")
def reid():
    return [make_reid_identity(REID, identity) for identity in range(REID.identities)]


def fails_at_one(spec, identity):
    if identity == 1:
        raise RuntimeError("the painter slipped")
    return identity


@dataclass(frozen=True)
class Ledger:
    """A set whose making leaves a line in a file."""

    path: Path
    identities: int


def note_threads(ledger, identity):
    with ledger.path.open("a") as file:
        file.write(f"{identity}\n")
    return max(library["num_threads"] for library in threadpool_info())


@pytest.mark.slow
def test_workers_use_one_thread_and_run_only_a_little_ahead(tmp_path):
    ledger = Ledger(tmp_path / "made", 40)
    results = map_identities(note_threads, ledger, processes=2)
    first = [next(results) for _ in range(10)]
    time.sleep(0.5)  # for what is made too far ahead
    made = ledger.path.read_text().split()
    assert first == [1] * 10
    assert 10 <= len(made) <= 10 + 2 * 2  # two a process
    results.close()


def test_work_of_an_abandoned_pool_is_not_started(monkeypatch):
    begun, go = [], threading.Event()

    def make(_spec, identity):
        begun.append(identity)
        return identity == 0 or go.wait(60)

    monkeypatch.setattr(
        workers, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count)
    )
    results = map_identities(make, Ledger(Path(), 9), processes=2)
    next(results)
    while len(begun) < 3:  # two are under way, and one more has been asked for
        time.sleep(0.01)
    threading.Timer(0.2, go.set).start()
    results.close()
    assert sorted(begun) == [0, 1, 2]


ENDLESS = """
import os
from tests.san_core.synthesis.test_dataset import Ledger, note_threads
from san_core.synthesis.workers import map_identities

if __name__ == "__main__":
    for made in map_identities(note_threads, Ledger(__PATH__, 10**9), processes=2):
        pass
"""


def group(leader):
    """The processes of a process group that are still running."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(pgrp) == leader and state != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="process groups are read from /proc")
def test_workers_end_when_their_parent_is_killed(start_process, tmp_path):
    ledger, script = tmp_path / "made", tmp_path / "endless.py"
    script.write_text(ENDLESS.replace("__PATH__", f"__import__('pathlib').Path({str(ledger)!r})"))
    root = str(Path(__file__).parents[3])
    process = start_process([sys.executable, script], env={**os.environ, "PYTHONPATH": root})
    deadline = time.monotonic() + 60
    try:
        while not (ledger.exists() and ledger.stat().st_size > 100):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the workers made nothing in a minute"
            time.sleep(0.05)
        assert len(group(process.pid)) >= 3  # the parent and two workers
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while left := group(process.pid):
            assert time.monotonic() < deadline, f"{left} outlive their parent"
            time.sleep(0.05)
    finally:
        if group(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_samples_do_not_depend_on_what_was_made_before(pit, reid):
    assert make_pit_identity(PIT, 3) == pit[3]
    assert make_reid_identity(REID, 2) == reid[2]


def test_two_processes_make_the_same_bytes_in_order(pit, reid):
    assert list(map_identities(make_reid_identity, REID, processes=2)) == reid
    assert list(map_identities(make_pit_identity, PIT, processes=2)) == pit


def test_one_process_makes_identities_in_order(pit):
    assert list(map_identities(make_pit_identity, PIT, processes=1)) == pit


def test_results_are_made_when_asked_for():
    made = []

    def note(spec, identity):
        made.append(identity)

    results = map_identities(note, PIT, processes=1)
    assert made == []
    next(results)
    assert made == [0]


def test_another_seed_makes_other_people(pit):
    other = make_pit_identity(replace(PIT, seed=6), 0)
    assert other.texture.data != pit[0].texture.data


def test_pairs_and_people_on_cameras_of_one_seed_are_different_people(monkeypatch):
    seen = []

    def note(looks):
        seen.append(looks)
        return paint_outfit(looks)

    monkeypatch.setattr("san_core.synthesis.dataset.paint_outfit", note)
    make_pit_identity(replace(PIT, meshes=1), 0)
    make_reid_identity(replace(REID, difficulty="easy", shots=1), 0)
    pair, person = seen
    assert pair.details != person.details
    assert pair.skin != person.skin


def test_more_identities_or_meshes_leave_the_others_as_they_are(pit):
    more = make_pit_identity(replace(PIT, meshes=3, identities=9, held_out=0.0), 1)
    assert [shot.data for shot in more.images[:2]] == [shot.data for shot in pit[1].images]
    assert more.texture.data == pit[1].texture.data


def test_pit_images_name_their_texture_and_share_its_split(pit):
    for identity, made in enumerate(pit):
        assert made.texture.name == f"{identity:04d}.png"
        assert [shot.name for shot in made.images] == [
            f"{identity:04d}_{k:02d}.jpg" for k in (0, 1)
        ]
        assert {shot.fields["texture"] for shot in made.images} == {made.texture.name}
        assert {shot.split for shot in made.images} == {made.texture.split}
        for shot in made.images:
            assert set(shot.fields) == {
                *("texture", "azimuth", "elevation", "pose", "shape", "background"),
            }
            assert len(shot.fields["shape"]) == len(current_body().components)
            assert 0 <= shot.fields["azimuth"] < 360
    tilts = [abs(shot.fields["elevation"]) for made in pit for shot in made.images]
    assert 5 < max(tilts) < 40  # degrees: half a radian is 29


def test_the_held_out_share_of_textures_is_for_validation(pit):
    splits = [made.texture.split for made in pit]
    assert splits.count("val") == 2  # 0.4 * 5
    assert splits.count("train") == 3


def test_who_is_held_out_follows_from_the_seed():
    splits = [held_out_identities(seed, 50, 0.2) for seed in range(3)]
    assert [len(split) for split in splits] == [10] * 3
    assert len(set(splits)) == 3
    assert held_out_identities(0, 50, 0.2) == splits[0]


def test_nothing_is_held_out_on_request_and_at_least_one_otherwise():
    def count(spec):
        return sum(
            make_pit_identity(spec, i).texture.split == "val" for i in range(spec.identities)
        )

    tiny = replace(PIT, identities=3, meshes=1)
    assert count(replace(tiny, held_out=0.0)) == 0
    assert count(replace(tiny, held_out=0.01)) == 1
    assert count(replace(tiny, held_out=0.99)) == 2


def test_files_have_the_sizes_asked_for(pit, reid):
    assert decode(pit[0].texture.data).shape == (64, 64, 3)
    assert decode(pit[0].images[0].data).shape == (64, 32, 3)
    assert decode(reid[0].shots[0].data).shape == (64, 32, 3)
    assert pit[0].texture.data.startswith(b"\x89PNG")
    assert reid[0].shots[0].data.startswith(b"\xff\xd8")


def test_people_differ_more_than_one_persons_textures_do(pit):
    textures = [decode(made.texture.data).astype(float) for made in pit]
    for first in range(len(textures)):
        for second in range(first):
            assert np.sqrt(((textures[first] - textures[second]) ** 2).mean()) > 12


def test_reid_names_parse_as_market_names(reid):
    names = [shot.name for made in reid for shot in made.shots]
    assert len(set(names)) == len(names) == 16  # 4 people x 2 cameras x 2 shots
    for made in reid:
        for shot in made.shots:
            pid, camera = map(int, MARKET_NAME.fullmatch(shot.name).groups())
            assert (pid, camera - 1) == (shot.pid, shot.camid) == (made.pid, shot.camid)


def test_cameras_are_numbered_from_0(reid):
    assert {shot.camid for made in reid for shot in made.shots} == {0, 1}


def test_reid_shots_tell_how_they_were_taken(reid):
    fields = {"azimuth", "elevation", "pose", "scene", "occluded"}
    assert all(set(shot.fields) == fields for made in reid for shot in made.shots)


@pytest.fixture(scope="module")
def hard():
    spec = replace(REID, train_identities=6, test_identities=0, shots=6, difficulty="hard")
    return spec, [shot for pid in range(6) for shot in make_reid_identity(spec, pid).shots]


def test_a_camera_takes_people_in_several_places(hard):
    for camid in range(REID.cameras):
        scenes = [shot.fields["scene"] for shot in hard[1] if shot.camid == camid]
        assert len(scenes) == 36
        assert len(set(scenes)) > 5
        assert set(scenes) <= set(range(SCENES_PER_CAMERA))


def test_every_place_of_a_camera_has_a_light_of_its_own(monkeypatch, hard):
    spec, drawn = hard[0], []

    def note(framed, texture, *, light, background, uv):
        drawn.append(light)
        return draw_mesh(framed, texture, light=light, background=background, uv=uv)

    monkeypatch.setattr("san_core.synthesis.dataset.draw_mesh", note)
    shots = make_reid_identity(spec, 0).shots
    level = difficulty_by_name("hard")
    expected = [make_camera(spec.seed, s.camid, level).lights[s.fields["scene"]] for s in shots]
    assert drawn == expected
    assert len(set(drawn)) > 6


def test_a_shot_is_taken_and_packed_by_its_own_camera(monkeypatch, hard):
    spec, level, taken, develop = hard[0], difficulty_by_name("hard"), [], Sensor.develop

    def note_sensor(sensor, rng, image):
        taken.append(sensor)
        return develop(sensor, rng, image)

    def note_quality(image, *, quality):
        taken.append(quality)
        return encode_jpeg(image, quality=quality)

    monkeypatch.setattr(Sensor, "develop", note_sensor)
    monkeypatch.setattr("san_core.synthesis.dataset.encode_jpeg", note_quality)
    shots = make_reid_identity(replace(spec, shots=1), 0).shots
    cameras = [make_camera(spec.seed, shot.camid, level) for shot in shots]
    assert taken == [part for one in cameras for part in (one.sensor, one.quality)]
    assert len({one.quality for one in cameras}) == len(cameras) == 2


def test_shots_said_to_be_occluded_are(monkeypatch, hard):
    spec, shots = hard
    said = [shot.fields["occluded"] for shot in shots]
    assert 0.1 < np.mean(said) < 0.6  # 0.3, more or less by camera
    monkeypatch.setattr("san_core.synthesis.dataset.draw_occluder", lambda *_: None)
    bare = [shot for pid in range(6) for shot in make_reid_identity(spec, pid).shots]
    assert [a.data != b.data for a, b in zip(shots, bare, strict=True)] == said


def test_people_to_train_on_and_to_test_on_are_apart(reid):
    by_split = {}
    for made in reid:
        for shot in made.shots:
            by_split.setdefault(shot.split, set()).add(shot.pid)
    assert by_split["train"] == {1, 2}
    assert by_split["query"] == by_split["gallery"] == {3, 4}


def test_each_test_person_has_one_query_on_every_camera(reid):
    for made in reid[2:]:
        for camid in range(REID.cameras):
            splits = sorted(shot.split for shot in made.shots if shot.camid == camid)
            assert splits == ["gallery", "query"]


def test_true_texture_of_a_person_is_what_every_shot_shows(monkeypatch):
    worn, picture = [], dataset._render_picture

    def note(rng, outfit, **rest):
        worn.append(outfit.texture)
        return picture(rng, outfit, **rest)

    monkeypatch.setattr(dataset, "_render_picture", note)
    make_reid_identity(REID, 3)
    assert len(worn) == REID.cameras * REID.shots
    assert all(np.array_equal(texture, reid_texture(REID, 3)) for texture in worn)
    assert not np.array_equal(worn[0], reid_texture(REID, 2))


def test_with_one_shot_everyone_is_query_on_some_cameras_and_gallery_on_others():
    spec = replace(REID, train_identities=0, test_identities=3, cameras=3, shots=1)
    for identity in range(3):
        shots = make_reid_identity(spec, identity).shots
        expected = ["query" if (identity + camid) % 2 == 0 else "gallery" for camid in range(3)]
        assert [shot.split for shot in shots] == expected


def test_a_workers_error_reaches_the_caller():
    results = map_identities(fails_at_one, PIT, processes=2)
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="the painter slipped"):
        list(results)


def interrupted(spec, identity):
    os.kill(os.getpid(), signal.SIGINT)
    return identity


def test_workers_leave_ctrl_c_to_their_parent():
    assert list(map_identities(interrupted, PIT, processes=2)) == [0, 1, 2, 3, 4]


def killed_at_one(spec, identity):
    if identity == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return identity


def test_a_killed_worker_is_reported():
    results = map_identities(killed_at_one, PIT, processes=2)
    with pytest.raises(ChildProcessError, match="one of 2 processes was killed"):
        list(results)


def test_occlusion_grows_with_difficulty():
    shares = [level.occlusion for level in DIFFICULTIES.values()]
    assert shares == sorted(shares)
    easy = replace(REID, difficulty="easy", train_identities=1, test_identities=0)
    assert not any(shot.fields["occluded"] for shot in make_reid_identity(easy, 0).shots)


def test_an_unknown_difficulty_lists_those_there_are():
    message = "no difficulty 'brutal'; there are: easy, normal, hard"
    with pytest.raises(ValueError, match=message):
        difficulty_by_name("brutal")
    with pytest.raises(ValueError, match=message):
        replace(REID, difficulty="brutal")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed is -1: it must be 0 to 9223372036854775807"),
        ({"identities": 0}, "identities is 0: it must be at least 1"),
        ({"meshes": 0}, "meshes is 0: it must be at least 1"),
        ({"image_size": (31, 16)}, "image size 31x16 is too small: it must be at least 32x16"),
        ({"image_size": (64, 15)}, "image size 64x15 is too small: it must be at least 32x16"),
        ({"image_size": (100_000, 50_000)}, "image size 100000x50000 is too large: at most 4096"),
        ({"identities": 10**9}, "pictures are too many: a set holds at most 99,999,000"),
        ({"meshes": 10**9}, "pictures are too many: a set holds at most 99,999,000"),
        ({"texture_size": 96}, "texture size 96 does not divide 256"),
        ({"held_out": 1.0}, "held_out is 1.0: it must be a share from 0 to below 1"),
        ({"held_out": -0.1}, "held_out is -0.1: it must be a share from 0 to below 1"),
        ({"identities": 1}, "identities is 1: holding some out"),
        ({"world": "moon"}, "no world 'moon'; there are: studio, street"),
    ],
)
def test_a_senseless_pit_set_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PIT, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed is -1: it must be 0 to 9223372036854775807"),
        ({"train_identities": -1}, "train_identities is -1: it must be at least 0"),
        ({"test_identities": -1}, "test_identities is -1: it must be at least 0"),
        (
            {"train_identities": 0, "test_identities": 0},
            r"train_identities \+ test_identities is 0: it must be at least 1",
        ),
        ({"shots": 0}, "shots is 0: it must be at least 1"),
        ({"image_size": (16, 16)}, "image size 16x16 is too small"),
        ({"image_size": (8192, 64)}, "image size 8192x64 is too large"),
        ({"shots": 10**9}, "pictures are too many"),
        ({"train_identities": 10**12}, "pictures are too many"),
        ({"cameras": 1}, "cameras is 1: it must be 2 to"),
        ({"cameras": 10}, "cameras is 10: it must be 2 to 9"),
    ],
)
def test_a_senseless_reid_set_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(REID, **change)


def test_an_identity_that_is_not_in_the_set_is_refused():
    with pytest.raises(ValueError, match="no identity 5: the set has 0 to 4"):
        make_pit_identity(PIT, 5)
    with pytest.raises(ValueError, match="no identity -1: the set has 0 to 3"):
        make_reid_identity(REID, -1)
    with pytest.raises(ValueError, match="no identity 4: the set has 0 to 3"):
        reid_texture(REID, 4)


def test_fewer_than_one_process_is_refused():
    with pytest.raises(ValueError, match="processes is 0: it must be at least 1"):
        map_identities(make_pit_identity, PIT, processes=0)
