"""Brings an image set that came as an artifact to this machine, checked before it is believed.

A set's manifest may travel alone: then it carries the absolute `uri` of the place where the shards
are. Otherwise the shards lie beside it.
"""

from pathlib import Path

from components.storage import local_path
from san_core.imageset import ImageSet, manifest_bytes, read_manifest, sha256


def open_set(artifact: Path, *, verify: bool = True) -> ImageSet:
    """Open the set of an artifact after comparing every byte with what was recorded.

    Args:
        artifact: the folder that holds the manifest.
        verify: whether to read all shards; the index alone is always checked.

    Raises:
        FileNotFoundError: the set is unfinished, or one of its files is missing.
        ValueError: it is damaged, or the sealed set is not the one that the artifact speaks of.
    """
    content = read_manifest(artifact)
    uri = content.pop("uri", None)
    place = artifact if uri is None else local_path(uri)
    images = ImageSet.open(place)
    if images.manifest != content and uri is not None:
        raise ValueError(
            f"{place} holds another image set than {artifact / 'manifest.json'} speaks of:"
            f" fingerprint {images.manifest['fingerprint'][:12]} where"
            f" {content['fingerprint'][:12]} was expected"
        )
    if verify:
        images.verify()
    return images


def identity(artifact: Path) -> str:
    """The sha256 that stands for an image set: that of its manifest, wherever the set lies.

    Raises:
        FileNotFoundError: the set is unfinished.
    """
    content = read_manifest(artifact)
    content.pop("uri", None)
    return sha256(manifest_bytes(content))
