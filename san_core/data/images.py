"""Photographs nobody has labelled: a folder of person images, for textures and nothing else."""

from pathlib import Path

from san_core.data.records import Listed

SUFFIXES = (".jpg", ".jpeg", ".png")


def listing(folder: Path) -> list[Listed]:
    """Every JPEG and PNG in a folder and its folders, by name; split `images`, no pid, no camid.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no image, or two whose textures would have one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} of images")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no image; they end in {', '.join(SUFFIXES)}")
    named: dict[Path, Path] = {}
    for path in paths:
        twin = named.setdefault(path.with_suffix(""), path)
        if twin != path:
            raise ValueError(f"{twin} and {path} differ in nothing but their endings")
    return [
        Listed(path.relative_to(folder).as_posix(), None, None, "images", path.read_bytes)
        for path in paths
    ]
