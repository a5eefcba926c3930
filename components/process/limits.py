"""The CPU and memory limits of a container, as its cgroups state them.

Version 2 and version 1 are read. The limits of all groups around a group apply to it, so the lowest
visible one counts. In a container, its own group is usually the root.
"""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def cpu_quota(root: Path = CGROUPS, groups: Path = OWN_GROUPS) -> float | None:
    """The number of cores whose time this process may use, such as 1.5; None without a limit.

    Args:
        root: where the cgroup file systems are mounted.
        groups: the file that lists the groups of this process.
    """
    shares = [_share_v2(text) for text in _read_settings("cpu.max", "", root, groups)]
    quotas = _read_settings("cpu.cfs_quota_us", "cpu", root, groups)
    periods = _read_settings("cpu.cfs_period_us", "cpu", root, groups)
    shares += [int(q) / int(p) for q, p in zip(quotas, periods, strict=True) if int(q) > 0]
    return min((share for share in shares if share is not None), default=None)


def memory_limit(root: Path = CGROUPS, groups: Path = OWN_GROUPS) -> int | None:
    """The number of bytes of memory that this process may use; None without a limit.

    Arguments are those of `cpu_quota`.
    """
    limits = [*_read_settings("memory.max", "", root, groups)]
    limits += _read_settings("memory.limit_in_bytes", "memory", root, groups)
    least = min((int(limit) for limit in limits if limit != "max"), default=None)
    # Without a limit, version 1 writes a number larger than any machine's memory.
    return None if least is None or least >= _machine_memory() else least


def _share_v2(text: str) -> float | None:
    """Cores of a line "QUOTA PERIOD", in microseconds; None for "max PERIOD"."""
    quota, period = text.split()
    return None if quota == "max" else int(quota) / int(period)


def _read_settings(name: str, controller: str, root: Path, groups: Path) -> Iterator[str]:
    """The contents of a setting's file in this process's group and in the groups around it.

    controller: of version 1; "" for version 2, which has one tree for all.
    """
    for folder in _group_folders(controller, root, groups):
        if (folder / name).is_file():
            yield (folder / name).read_text().strip()


def _group_folders(controller: str, root: Path, groups: Path) -> Iterator[Path]:
    """The possible folders of a controller's groups for this process, from its own to the root."""
    lines = groups.read_text().splitlines() if groups.is_file() else []
    found = [line.split(":", 2)[1:] for line in lines]
    names, path = next((n_p for n_p in found if controller in n_p[0].split(",")), ["", "/"])
    mount = root / names
    if not mount.is_dir():
        mount = root / controller
    # A path with .. is outside the tree that this container sees.
    own = mount if ".." in path else mount / path.strip("/")
    yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
