"""A project of small steps and pipelines, for tests of the runner."""

import importlib.util
import shutil
import textwrap
from pathlib import Path
from typing import Any

from kfp import dsl

from components.command.code import ROOT, import_closure
from components.kubeflow.component import step_component

# A step for each thing the runner has to do: nothing in, optional input, a loop, pages, figures.
STEPS = {
    "make": '''
        def make(
            data: Annotated[Path, Output("Dataset")],
            number: int = 1,
            source: str = "",
            overrides: str = "",
        ) -> None:
            """Make a number.

            Args:
                data: the number
                number: which
                source: a folder whose files are counted into it
                overrides: a file whose number is added, as in "pretrained=FILE"
            """
            from san_core.numbers import text
            data.mkdir()
            more = len(list(local_path(source).iterdir())) if source else 0
            if overrides:
                more += int(local_path(overrides.removeprefix("pretrained=")).read_text())
            (data / "number").write_text(text(number + more))
    ''',
    "grow": '''
        import logging
        import os
        import subprocess
        import time

        def grow(
            data: Annotated[Path, Input("Dataset")],
            result: Annotated[Path, Output("Dataset")],
            page: Annotated[Path, Output("HTML")],
            size: Annotated[Path, Output("Metrics")],
            extra: Annotated[Path | None, Input("Dataset")] = None,
            by: int = 0,
            flag: str = "",
            checkpoint: str = "",
        ) -> None:
            """Add to the number.

            Args:
                data: the number
                result: the greater number
                page: a page
                size: the result
                extra: another number to add
                by: how much
                flag: a file; how to misbehave, as long as it is there
                checkpoint: where a state would be kept
            """
            number = int((data / "number").read_text()) + by
            if extra:
                number += int((extra / "number").read_text())
            logging.getLogger().info("adding %d", by)
            result.mkdir()
            (result / "number").write_text(str(number))
            how = Path(flag).read_text() if flag and Path(flag).is_file() else ""
            for told in {"warn": 2, "warn often": 20}.get(how, 0) * ["the number is small"]:
                logging.getLogger().warning("%s %d", told, number)
                number += how == "warn often"
            if how == "fail":
                raise ValueError("the number is too small")
            if how == "crash":
                raise RuntimeError("out of luck")
            if how == "hang":
                (result / "hanging").write_text(str(os.getpid()))
                time.sleep(600)
            if how == "leave":
                left = subprocess.Popen(["sleep", "600"])
                (result / "left").write_text(str(left.pid))
            if how != "forget":
                page.write_text("<p>")
            write_metrics(size, {"number": number, "half": number / 2})
    ''',
    "part": '''
        import json
        import os

        def part(
            data: Annotated[Path, Input("Dataset")],
            written: Annotated[Path, Output("Dataset")],
            store: str,
            worker: str = "0/1",
        ) -> None:
            """Write one shard into a store.

            Args:
                data: the number
                written: which shard
                store: where shards are
                worker: which of how many
            """
            name = worker.replace("/", "-")
            write_file(Path(store, name + ".tar"), (data / "number").read_text())
            write_file(Path(store, name + ".json"), os.environ["OMP_NUM_THREADS"])
            shards = [{"tar": name + ".tar", "sidecar": name + ".json"}]
            write_file(
                written / "manifest.json",
                json.dumps({"uri": Path(store).as_uri(), "shards": shards, "count": 1}),
            )
    ''',
}
HEADER = """
from pathlib import Path
from typing import Annotated
from components.storage.outputs import write_file, write_metrics
from components.storage.places import local_path
from components.command.step import Input, Output
"""
MAIN = """
import importlib, sys
from components.command.run import run_step
step = getattr(importlib.import_module(f"components.{sys.argv[1]}"), sys.argv[1])
sys.exit(run_step(step, sys.argv[2:]))
"""


def write_project(root: Path) -> None:
    """A checkout with three small steps, what runs one of them, and what runs all."""
    needed = {*import_closure("components.command.run"), *import_closure("components.runner.local")}
    for file in needed:
        if file.suffix == ".py":
            copy = root / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    for name, text in STEPS.items():
        (root / "components" / f"{name}.py").write_text(HEADER + textwrap.dedent(text))
    (root / "components" / "__main__.py").write_text(MAIN)
    (root / "san_core" / "numbers.py").write_text("def text(number):\n    return str(number)\n")


def load(root: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(
        f"small_{name}", root / "components" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return step_component(getattr(module, name), "small:1")


def pipelines(root: Path) -> dict[str, Any]:
    make, grow, part = (load(root, name) for name in STEPS)

    @dsl.pipeline(name="chain")
    def chain(
        number: int = 1,
        by: int = 10,
        flag: str = "",
        source: str = "",
        overrides: str = "",
        checkpoint: str = "",
    ):
        made = make(number=number, source=source, overrides=overrides)
        grown = grow(data=made.output, by=by, flag=flag, checkpoint=checkpoint)
        grow(data=grown.outputs["result"], by=100).set_display_name("again")

    @dsl.pipeline(name="extra")
    def extra(number: int = 1, other: int = 5):
        made = make(number=number)
        more = make(number=other)
        grow(data=made.output, extra=more.output)

    @dsl.pipeline(name="loop")
    def loop(store: str, workers: list = ["0/2", "1/2"]):  # noqa: B006
        made = make()
        with dsl.ParallelFor(items=workers) as worker:
            parts = part(data=made.output, store=f"{store}/shards", worker=worker)
        grow(data=made.output).after(parts)

    @dsl.pipeline(name="importing")
    def importing(uri: str):
        taken = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)
        grow(data=taken.output, by=1)

    return {"chain": chain, "extra": extra, "loop": loop, "importing": importing}


def done(lines: list[str]) -> list[str]:
    """The tasks that these lines of a terminal say are done."""
    return [line.split()[0] for line in lines if " ... done in " in line]


def skipped(lines: list[str]) -> list[str]:
    """The tasks that these lines say were skipped."""
    return [line.split()[0] for line in lines if line.endswith(" ... skipped (unchanged)")]


def runner_program(module: str, launcher: str) -> str:
    """A program that runs the pipeline in its argument with a launcher from a module."""
    return f"""
import json, signal, sys
from pathlib import Path
from components.process.signals import Terminated
from components.runner import local
from {module} import {launcher.partition("(")[0]}
# As from a terminal, even if the tests run in the background, where Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
document, arguments, folder = json.loads(sys.argv[1])
try:
    launcher = {launcher}
    local.run_pipeline(document, arguments, folder=Path(folder), launcher=launcher)
except KeyboardInterrupt:
    sys.exit(130)
except Terminated as stop:
    sys.exit(stop.status)
"""
