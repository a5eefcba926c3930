"""How long the demo takes, how long a second run takes, and how good its model is."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.figure import Figure

ROOT = Path(__file__).parents[3]


def figures() -> Iterator[Figure]:
    """Run the demo twice in an empty folder; wall-clock seconds, and what its reports say."""
    with tempfile.TemporaryDirectory() as runs:
        yield Figure("pipeline.demo_seconds", _run_demo(runs), "s")
        yield Figure("pipeline.demo_skip_seconds", _run_demo(runs), "s")
        report = json.loads(Path(runs, "demo/evaluate/report/report.json").read_bytes())
        yield Figure("pipeline.demo_map", report["mAP"], "fraction")
        yield Figure("pipeline.demo_rank1", report["rank1"], "fraction")
        for name, scores in report["references"].items():
            figure = f"pipeline.demo_map_{name.replace(' ', '_')}"
            yield Figure(figure, scores["mAP"], "fraction")
        pg = json.loads(Path(runs, "demo/train_san_pg/generator/report.json").read_bytes())
        gain = pg["psnr"] - pg["psnr_of_mean_texture"]
        yield Figure("pipeline.demo_psnr_gain_over_mean_db", gain, "dB")


def _run_demo(runs: str) -> float:
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "pipeline.py", "run", "--preset", "demo", "--runs", runs],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - start
