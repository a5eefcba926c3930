"""A body as data: refused files, and another body and layout than the package's."""

import io
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from san_core.images.pixels import decode
from san_core.synthesis.dataset import make_pit_identity
from san_core.synthesis.person.body import use_body
from san_core.synthesis.person.body_file import TEXTURE_SIZE, read_body
from san_core.synthesis.spec import PitSpec
from san_core.synthesis.workers import map_identities

SPEC = PitSpec(seed=4, identities=3, meshes=2, image_size=(128, 64), held_out=0.0, dense=True)
TOP = 132  # rows of the package's atlas that torso and legs take; head, arms, hands, feet follow


def arrays():
    with resources.files("san_core.synthesis.person").joinpath("body.npz").open("rb") as file:
        return dict(np.load(file))


def saved(path, **changes):
    np.savez(path, **{k: v for k, v in {**arrays(), **changes}.items() if v is not None})
    return path


def test_the_package_s_body_is_read():
    with resources.files("san_core.synthesis.person").joinpath("body.npz").open("rb") as file:
        people = read_body(file, name="body.npz")
    assert people.atlas == "san-atlas-1"
    assert len(people.sha256) == 64


def spoilt():
    good = arrays()
    names, parents = good["names"].copy(), good["parents"].copy()
    names[3] = "tail"
    parents[2] = 9
    faces, uv, weights = good["F"].astype(int), good["UV"].copy(), good["ww"].copy()
    faces[0, 0] = len(good["mean"])
    uv[0] = 300
    weights[7] = 0
    children = good["ph"].copy()
    children[:, 1] = 0
    yield "no key", {"comp": None}, "array 'comp' is missing"
    yield "short", {"ww": good["ww"][:-1]}, r"'ww' has the shape \(4456, 4\); expected \(V, 4\)"
    yield (
        "flat",
        {"mean": good["mean"].ravel()},
        r"'mean' has the shape \(13371,\); expected \(V, 3",
    )
    yield "names", {"names": names}, "'names' lacks spine01"
    yield "charts", {"charts": np.append(good["charts"][:-1], "tail")}, "'charts' lacks foot.R"
    yield "parents", {"parents": parents}, "'parents' a bone comes before its parent"
    yield "faces", {"F": faces}, "'F' has indices outside 0 to 4456"
    yield "uv", {"UV": uv}, "'UV' lies outside the 256x256 texels"
    yield "weights", {"ww": weights}, "'ww' leaves vertices without a bone"
    infinite = good["comp"].copy()
    infinite[3, 7] = np.inf
    inwards = {"F": good["F"][:, ::-1], "FU": good["FU"][:, ::-1]}
    none = {"F": good["F"][:0], "FU": good["FU"][:0], "chart": good["chart"][:0]}
    yield "kind", {"FU": good["FU"] + 0.5}, "'FU' is float64; it must hold whole numbers"
    yield "text", {"names": np.arange(20)}, "'names' is int64; it must hold text"
    yield "number", {"mean": good["mean"].astype(str)}, "'mean' is <U32; it must hold numbers"
    yield "none", none, "'F' is empty"
    yield "infinite", {"comp": infinite}, "'comp' has values that are not finite"
    yield "sex alone", {"ph": good["ph"][:, :1]}, "'ph' must have two columns, sex and age"
    yield "cm", {"mean": 100 * good["mean"]}, "is 169 high along z, .* 1.2 to 2.5 metres"
    yield "y up", {"mean": good["mean"][:, [0, 2, 1]]}, "is 0.414 high along z"
    yield "floor", {"mean": good["mean"] + [0, 0, 0.8]}, "z runs from -0.02 to 1.67 metres; 0 must"
    yield "inwards", inwards, "'F' is wound so that normals point inwards"
    yield "adults", {"ph": children}, "'ph' must have adults of both sexes"


@pytest.mark.parametrize(("changes", "message"), [case[1:] for case in spoilt()])
def test_a_file_that_is_no_body_is_refused_by_its_array(tmp_path, changes, message):
    data = io.BytesIO(saved(tmp_path / "odd.npz", **changes).read_bytes())
    with pytest.raises(ValueError, match=rf"odd\.npz: .*{message}"):
        read_body(data, name="odd.npz")


def refusal(data):
    """What is said of a file; empty if it is read."""
    try:
        read_body(io.BytesIO(data), name="odd.npz")
    except ValueError as error:
        return str(error)
    return ""


def test_a_file_with_flipped_bits_is_refused_by_name():
    with resources.files("san_core.synthesis.person").joinpath("body.npz").open("rb") as file:
        whole = file.read()
    rng, said = np.random.default_rng(0), []
    for place in rng.integers(len(whole), size=60):
        data = bytearray(whole)
        data[place] ^= 1 << rng.integers(8)
        said.append(refusal(bytes(data)))
    assert refusal(whole) == ""
    assert sum(text.startswith("odd.npz is not an npz file with a body: ") for text in said) > 55


def test_a_file_that_is_no_npz_is_refused():
    with pytest.raises(ValueError, match=r"odd\.npz is not an npz file with a body"):
        read_body(io.BytesIO(b"PK of another kind"), name="odd.npz")


def test_a_process_has_one_body(tmp_path):
    make_pit_identity(SPEC, 0)
    with pytest.raises(RuntimeError, match="this process already uses another body"):
        use_body(saved(tmp_path / "other.npz", atlas=np.array("other")))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.npz with a body"):
        use_body(tmp_path / "none.npz")


def made(body_file, *, identities=1):
    """Made in other processes, since this one has its body."""
    spec = replace(SPEC, identities=identities, body_file=body_file)
    return list(map_identities(make_pit_identity, spec, processes=2))


@pytest.fixture(scope="module")
def ours():
    return [make_pit_identity(SPEC, identity) for identity in range(SPEC.identities)]


def test_another_layout_moves_the_texture_and_leaves_the_pictures(tmp_path, ours):
    # The upper charts go below the lower ones.
    uv, below = arrays()["UV"], TEXTURE_SIZE - TOP
    uv[:, 1] = np.where(uv[:, 1] < TOP - 0.5, uv[:, 1] + below, uv[:, 1] - TOP)
    file = saved(tmp_path / "moved.npz", UV=uv, atlas=np.array("upside-down"))
    for person, moved in zip(ours, made(file, identities=3), strict=True):
        texture = decode(person.texture.data)
        assert (decode(moved.texture.data) == np.roll(texture, below, axis=0)).mean() > 0.999
        for image, other in zip(person.images, moved.images, strict=True):
            difference = np.abs(decode(image.data).astype(int) - decode(other.data))
            assert difference.mean() < 0.5
        rows, other_rows = (decode(p.dense[0].data)[..., 1].astype(int) for p in (person, moved))
        assert (other_rows[rows > TOP] == rows[rows > TOP] - TOP).all()


def test_the_provenance_has_the_layout_and_the_digest_of_the_file(tmp_path):
    file = saved(tmp_path / "other.npz", atlas=np.array("other"))
    told = PitSpec(seed=0, body_file=file).provenance()
    assert told["atlas"] == "other"
    assert len(told["spec"]["body_file"]) == 64
    assert PitSpec(seed=0).provenance()["atlas"] == "san-atlas-1"


def test_another_layout_cannot_have_the_name_of_the_package_layout(tmp_path):
    same = saved(tmp_path / "same.npz", mean=arrays()["mean"] * np.float32(1.01))
    assert PitSpec(seed=0, body_file=same).provenance()["atlas"] == "san-atlas-1"
    mirrored = arrays()["UV"] * [-1, 1] + [TEXTURE_SIZE - 1, 0]
    file = saved(tmp_path / "odd.npz", UV=mirrored)
    with pytest.raises(ValueError, match=r"odd.npz calls its atlas 'san-atlas-1', .* differently"):
        PitSpec(seed=0, body_file=file).provenance()


def test_texels_that_no_face_covers_take_their_neighbours(tmp_path, ours):
    # Both hands shrink inside their rectangles, as islands of other layouts do.
    uv, people = arrays()["UV"], arrays()
    of_hands = np.isin(people["chart"], [list(people["charts"]).index(f"hand.{s}") for s in "LR"])
    hands = np.unique(people["FU"][of_hands])
    for side in (uv[hands, 0] < 199.5, uv[hands, 0] > 199.5):
        middle = uv[hands[side]].mean(axis=0)
        uv[hands[side]] = middle + 0.7 * (uv[hands[side]] - middle)
    moved = made(saved(tmp_path / "islands.npz", UV=uv))
    same = np.s_[:208]  # all rows above feet and hands
    assert (decode(moved[0].texture.data)[same] == decode(ours[0].texture.data)[same]).all()
    hands = decode(moved[0].texture.data)[220:254, 156:254]
    skin = np.median(hands, axis=(0, 1))
    assert (np.abs(hands - skin).max(axis=2) < 40).mean() > 0.95


def test_legs_that_do_not_fill_rectangles_are_refused(tmp_path):
    uv, people = arrays()["UV"], arrays()
    legs = np.unique(people["FU"][people["chart"] == list(people["charts"]).index("leg.L")])
    uv[legs, 1] = TOP - 1 - uv[legs, 1]  # feet first
    with pytest.raises(ValueError, match=r"leg.L not upright, the hip above"):
        made(saved(tmp_path / "handstand.npz", UV=uv))


@pytest.mark.parametrize("chart", ["hand.L", "foot.R", "torso_front"])
def test_a_chart_that_is_mirrored_in_its_place_is_another_layout(tmp_path, chart):
    uv, its = arrays()["UV"].copy(), arrays()["charts"].tolist().index(chart)
    corners = np.unique(arrays()["FU"][arrays()["chart"] == its])
    uv[corners, 0] = uv[corners, 0].min() + uv[corners, 0].max() - uv[corners, 0]
    file = saved(tmp_path / "odd.npz", UV=uv)
    with pytest.raises(ValueError, match=r"odd.npz calls its atlas 'san-atlas-1', .* differently"):
        PitSpec(seed=0, body_file=file).provenance()
