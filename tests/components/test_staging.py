import json

import pytest

from components.staging import identity, open_set
from san_core.imageset import manifest_bytes


def _travelling(small_set, folder):
    """The manifest alone, as it travels between steps."""
    folder.mkdir()
    content = {**small_set.manifest, "uri": small_set.path.as_uri()}
    (folder / "manifest.json").write_bytes(manifest_bytes(content))
    return folder


def test_set_beside_its_manifest_is_opened(small_set):
    with open_set(small_set.path) as images:
        assert images.records == small_set.records


def test_manifest_that_travels_alone_leads_to_its_shards(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    with open_set(artifact) as images:
        assert images.records == small_set.records
        assert images.path == small_set.path


def test_identity_is_that_of_the_content_wherever_it_lies(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    assert identity(artifact) == identity(small_set.path)
    changed = {**small_set.manifest, "fingerprint": "other"}
    (artifact / "manifest.json").write_bytes(manifest_bytes(changed))
    assert identity(artifact) != identity(small_set.path)


def test_another_set_at_the_place_is_refused(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    content = json.loads((artifact / "manifest.json").read_bytes())
    content["fingerprint"] = "f" * 64
    (artifact / "manifest.json").write_bytes(manifest_bytes(content))
    with pytest.raises(ValueError, match=r"holds another image set than .* ffffffffffff was expec"):
        open_set(artifact)


def test_damaged_shard_is_refused_before_anything_is_read(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    tar = small_set.path / small_set.manifest["shards"][0]["tar"]
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{tar.name} is damaged"):
        open_set(artifact)


def test_unfinished_set_has_no_identity(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a finished image set"):
        identity(tmp_path)
