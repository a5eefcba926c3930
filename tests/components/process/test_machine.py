"""What a machine offers, as a container sees it."""

import os

import pytest

from components.process.machine import core_count


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000\n", 2),
        ("350000 100000\n", 3),  # what a fourth thread would wait for
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("max 100000\n", 8),
        (None, 8),
    ],
)
def test_cores_are_those_of_the_quota_and_of_the_affinity(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    assert core_count(tmp_path / "cpu.max") == expected
