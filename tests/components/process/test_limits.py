"""Limits of containers, read from trees of files as the two versions of cgroups lay them out."""

from pathlib import Path

import pytest

from components.process.limits import cpu_quota, memory_limit

GIB = 2**30


def group(tmp_path: Path, groups: str, **files: str) -> dict[str, Path]:
    """A file system of cgroups, and the file that says which of them this process is in."""
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "groups").write_text(groups)
    return {"root": tmp_path / "cgroup", "groups": tmp_path / "groups"}


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("20000 10000\n", 2.0)]
)
def test_quota_of_version_2_is_in_cores(tmp_path, text, cores):
    assert cpu_quota(**group(tmp_path, "0::/\n", **{"cpu.max": text})) == cores


@pytest.mark.parametrize(("quota", "cores"), [("150000\n", 1.5), ("-1\n", None)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quota_of_version_1_is_in_cores(tmp_path, mount, quota, cores):
    files = {f"{mount}/cpu.cfs_quota_us": quota, f"{mount}/cpu.cfs_period_us": "100000\n"}
    assert cpu_quota(**group(tmp_path, f"3:{mount}:/docker/1f\n0::/\n", **files)) == cores


def test_quota_of_a_group_around_this_one_counts(tmp_path):
    files = {
        "pod/cpu.max": "100000 100000\n",
        "pod/one/cpu.max": "400000 100000\n",
        "pod/other/cpu.max": "50000 100000\n",
    }
    assert cpu_quota(**group(tmp_path, "0::/pod/one\n", **files)) == 1.0


def test_nothing_limits_where_there_are_no_groups(tmp_path):
    nowhere = {"root": tmp_path / "none", "groups": tmp_path / "neither"}
    assert cpu_quota(**nowhere) is None
    assert memory_limit(**nowhere) is None


def test_path_that_leads_out_of_the_container_is_not_followed(tmp_path):
    files = {"cgroup/cpu.max": "100000 100000\n", "cpu.max": "300000 100000\n"}
    assert cpu_quota(**group(tmp_path, "0::/../cgroup\n", **files)) == 3.0


@pytest.mark.parametrize(
    ("groups", "name", "text", "limit"),
    [
        ("0::/\n", "memory.max", f"{GIB // 4}\n", GIB // 4),
        ("0::/\n", "memory.max", "max\n", None),
        ("5:memory:/k\n", "memory/memory.limit_in_bytes", f"{GIB // 4}\n", GIB // 4),
        ("5:memory:/k\n", "memory/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_memory_is_limited_where_a_group_says_less_than_the_machine_has(
    tmp_path, groups, name, text, limit
):
    assert memory_limit(**group(tmp_path, groups, **{name: text})) == limit
