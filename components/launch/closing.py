"""The last lines of a run: where its results are, and which commands may come next."""

import os
from pathlib import Path

from components.experiments.index import INDEX_FILE
from components.experiments.record import Run, read_run, read_runs
from components.process.machine import shell_command
from components.storage.places import real_path


def closing_lines(folder: Path) -> list[str]:
    """The place of the results of a run, and the three most useful next commands."""
    run = read_run(real_path(folder))
    if run is None:
        return []
    pages = [page for files in run.pages().values() for page in files]
    lines = [f"results: {_shown(pages[-1] if pages else run.folder)}"]
    lines += [f"all runs: {_shown(run.folder.parent / INDEX_FILE)}", "next:"]
    return [*lines, *(f"  {command}" for command in next_commands(run))]


def next_commands(run: Run) -> list[str]:
    """Commands that change a setting under another name, compare runs, and search own pictures."""
    scored = [one.name for one in read_runs(run.folder.parent) if one.output("evaluate", "report")]
    others = [name for name in scored if name != run.name]
    runs = _shown(run.folder.parent)
    place = [] if runs == "runs" else ["--runs", runs]
    again = ["pipeline.py", "run", "--of", run.name, "--name", f"{run.name}-2", *place]
    seed = run.record.request.parameters.get("seed", 0) + 1
    commands = [[*again, "--param", f"seed={seed}"]]
    if others and run.name in scored:
        commands.append(["-m", "components", "compare", others[0], run.name, *place])
    else:
        commands.append(["pipeline.py", "runs", "list", *place])
    model = run.output("train_san", "model") or run.output("take_model", "model")
    if model:
        search = ["-m", "components", "search", "--model", _shown(model)]
        commands.append([*search, "--gallery", "FOLDER", "--query", "FILE"])
    return [shell_command(*command) for command in commands]


def _shown(path: Path) -> str:
    """A path relative to the working directory if it is below it, else unchanged."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
