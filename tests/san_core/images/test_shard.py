import hashlib
import io
import json
import re
import tarfile
import tracemalloc

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from san_core.images.shard import Item, canonical_json, is_plain_path, pack_shard


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up.jpg", "a//b.jpg", "./a.jpg"])
def test_name_that_could_leave_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is not a plain relative path"):
        pack_shard([Item(name, b"", None, None, "train")], tmp_path / "x.tar", 0, total=1)


def test_name_too_long_for_a_tar_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"image 'x{300}': name is too long"):
        pack_shard([Item("x" * 300, b"", None, None, "train")], tmp_path / "x.tar", 0, total=1)


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg: split 'test' is not one of train, val, query"):
        pack_shard([Item("a.jpg", b"", None, None, "test")], tmp_path / "x.tar", 0, total=1)


def test_field_that_hides_a_fixed_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="field 'size' is reserved by the format"):
        pack_shard(
            [Item("a.jpg", b"", None, None, "train", {"size": 3})], tmp_path / "x.tar", 0, total=1
        )


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


def test_shard_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a shard holds 1 to 1000 images, not 0"):
        pack_shard([], tmp_path / "x.tar", 0, total=1)


def test_shard_is_described_by_what_is_in_its_file(tmp_path):
    made = pack_shard([Item("a.jpg", b"abc", 1, 0, "train")], tmp_path / "x.tar", 7, total=130)
    data = (tmp_path / "x.tar").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert (made.tar, made.size, made.sha256) == (tmp_path / "x.tar", len(data), digest)
    assert made.tar_name == f"shards/00007-of-00130.{digest[:12]}.tar"
    assert made.sidecar_name == f"shards/00007-of-00130.{digest[:12]}.json"
    (image,) = json.loads(made.sidecar)["images"]
    assert data[image["offset"] : image["offset"] + image["size"]] == b"abc"


def test_memory_holds_one_image_at_a_time(tmp_path):
    items = (Item(f"{i}.jpg", bytes(200_000), 1, 0, "train") for i in range(50))
    tracemalloc.start()
    pack_shard(items, tmp_path / "x.tar", 0, total=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0/")


@given(
    st.lists(st.text(CHARACTERS, min_size=1, max_size=60)),
    st.binary(max_size=2000),
)
def test_a_shard_is_byte_by_byte_what_tarfile_writes(tmp_path_factory, parts, data):
    name = "/".join(parts)
    assume(is_plain_path(name))
    folder = tmp_path_factory.getbasetemp()
    info = tarfile.TarInfo(name)
    info.size = len(data)
    expected = folder / "expected.tar"
    with tarfile.open(expected, "w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        try:
            tar.addfile(info, io.BytesIO(data))
        except ValueError as error:
            with pytest.raises(ValueError, match=re.escape(str(error))):
                pack_shard([Item(name, data, 1, 0, "train")], folder / "x.tar", 0, total=1)
            return
    pack_shard([Item(name, data, 1, 0, "train")], folder / "x.tar", 0, total=1)
    assert (folder / "x.tar").read_bytes() == expected.read_bytes()
