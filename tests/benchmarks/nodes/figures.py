"""Two nodes that train together, against one: network namespaces of this machine, joined by gloo.

What workers share instead is measured on one thread: `embed_cpu_seconds` and `texture_cpu_seconds`
of an image by the published networks.

`two_equal_one` is 1 where all weights are those of one process within 1e-5. `two_vs_one` compares
epochs of one process of one thread on each node with those of one such process alone: on a machine
with two cores or more it shows what the network of this kernel costs, not what a real one does.
`ended` counts how often, of `KILLS` times, the rest ended within a minute in one line after a node
that had joined was killed at a random moment; `resumed` is 1 where training then goes on from what
was kept.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from san_core.inference.features import embed
from san_core.inference.textures import predict_textures
from san_core.model.san import build_network
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import ROOT, median_cpu_seconds, one_thread
from tests.servers.network import Network, running_network
from tests.tiny import TinyRun, run_all_steps, step_command, with_flags, with_outputs_in

KILLS = 10
MOST_SECONDS_OF_TRAINING = 25.0  # before a node is killed
MOST_SECONDS_TO_END = 120.0  # after that; then the other is killed too, and it did not end well
IMAGES = 32  # that are embedded, or seen by a generator, at once
MOST_DIFFERENCE = 1e-5
FLOAT64 = "tests.steps.together.in_float64"
RECIPE = "identities_per_batch=4 images_per_identity=2 warmup_epochs=1 lr=1e-3 decoder_lr=1e-3"
SPEED = "identities_per_batch=6 images_per_identity=4 warmup_epochs=1 epochs=12"
_RATE = re.compile(r"  (\d+) img/s")


def figures() -> Iterator[Figure]:
    """How equal, how fast, how often it ends well; all nodes share folders of this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="san-nodes-") as folder,
        running_network(Path(folder, "nodes"), 2) as network,
    ):
        yield from _shared_work()
        tiny = run_all_steps(Path(folder, "tiny"))
        bench = _Bench(Path(folder), tiny, network)
        difference = bench.largest_difference()
        yield Figure("nodes.largest_difference", difference, "")
        yield Figure("nodes.two_equal_one", float(difference < MOST_DIFFERENCE), "")
        yield Figure("nodes.two_vs_one", bench.share_of_time(), "x")
        ended = [bench.seconds_after_kill(random.Random(n)) for n in range(KILLS)]
        well = [seconds for seconds in ended if seconds is not None]
        yield Figure("nodes.ended", len(well), f"of {KILLS}")
        yield Figure("nodes.resumed", float(bench.is_resumed()), "")
        yield Figure("nodes.seconds_to_end", max(well, default=float("nan")), "s")


def _shared_work() -> Iterator[Figure]:
    """What an image costs the workers that embed, and those that make textures."""
    encoder, generator = (get_recipe(name) for name in ("market1501-baseline", "pit"))
    for name, recipe, work in (
        ("embed", encoder, embed),
        ("texture", generator, partial(predict_textures, device="cpu")),
    ):
        settings = recipe_with_overrides(recipe, "pretrained=none")
        classes = 2 if settings.needs_identities else 0
        model = build_network(settings, num_classes=classes, seed=0)
        size = (IMAGES, settings.image_height, settings.image_width, 3)
        images = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        with one_thread():
            (seconds,) = median_cpu_seconds(partial(work, model, images), times=3)
        yield Figure(f"nodes.{name}_cpu_seconds", seconds / IMAGES, "s")


class _Bench:
    def __init__(self, folder: Path, tiny: TinyRun, network: Network) -> None:
        self._folder, self._tiny, self._network = folder, tiny, network

    def _command(self, name: str, overrides: str, **flags: str) -> list[str]:
        command = with_outputs_in(step_command("train_san", self._tiny), self._folder / name)
        return with_flags(command, overrides=overrides, **flags)

    def _alone(self, command: Sequence[str], module: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", module, *command],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
            stderr=subprocess.PIPE,
            text=True,
        ).stderr

    def _on_both(self, command: Sequence[str], module: str) -> str:
        first, second = self._network.start(command, {}, module=module)
        log = first.communicate()[1]
        second.communicate()
        if first.returncode:
            raise RuntimeError(log)
        return log

    def largest_difference(self) -> float:
        """The largest difference of a weight after three epochs, in absolute value."""
        self._alone(self._command("one", f"epochs=3 {RECIPE}"), FLOAT64)
        self._on_both(self._command("two", f"epochs=3 {RECIPE}"), FLOAT64)
        one, two = (
            load_file(self._folder / name / "model" / "weights.safetensors")
            for name in ("one", "two")
        )
        return max(float(np.abs(one[name] - two[name]).max()) for name in one)

    def share_of_time(self) -> float:
        """The time of an epoch on two nodes, in those of one process; medians."""
        logs = (
            self._alone(self._command("alone", SPEED), "components"),
            self._on_both(self._command("both", SPEED), "components"),
        )
        one, two = (np.median([int(rate) for rate in _RATE.findall(log)[1:]]) for log in logs)
        return float(one / two)

    def seconds_after_kill(self, draw: random.Random) -> float | None:
        """How long the first node took to end after the second was killed; None if not well.

        Each try goes on from the state of those before it.

        Raises:
            RuntimeError: it ended before the second was killed.
        """
        first, second = self._network.start(self._endless(), {})
        _wait_for(first, "images decoded")
        try:
            first.wait(draw.uniform(0, MOST_SECONDS_OF_TRAINING))
        except subprocess.TimeoutExpired:
            self._network.nodes[1].kill()
        else:
            raise RuntimeError(f"training ended by itself: {first.communicate()[1]}")
        began = time.monotonic()
        try:
            log = first.communicate(timeout=MOST_SECONDS_TO_END)[1]
        except subprocess.TimeoutExpired:
            self._network.nodes[0].kill()
            log = first.communicate()[1]
        seconds = time.monotonic() - began
        second.communicate()
        lines = [line for line in log.splitlines() if line.startswith("train_san:")]
        is_well = len(lines) == 1 and "node 1 (" in lines[0] and seconds < 60
        told = "\n".join(lines) or "it said nothing"
        print(f"killed; the other ended after {seconds:.0f} s: {told}", file=sys.stderr, flush=True)
        return seconds if is_well else None

    def is_resumed(self) -> bool:
        """Whether training goes on from the state that all tries have left."""
        first, second = self._network.start(self._endless(), {})
        try:
            _wait_for(first, "resuming after epoch")
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            return False
        finally:
            for node in self._network.nodes:
                node.kill()
            second.communicate()
        return True

    def _endless(self) -> list[str]:
        """Training that no try ends: an epoch of it takes a fraction of a second."""
        state = str(self._folder / "states")
        return self._command("killed", f"epochs=100000 {RECIPE}", checkpoint=state)


def _wait_for(process: "subprocess.Popen[str]", words: str) -> None:
    """Wait until a process says some words.

    Raises:
        RuntimeError: it ended without them.
    """
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    raise RuntimeError(f"training did not say {words!r}: {''.join(said)}")
