"""`python -m components STEP ...`: the command of the images and of a shell alike."""

import os
import signal
import sys
from collections.abc import Callable, Sequence

if __name__ == "__main__":
    from components.process.signals import end_by_interrupt, hear_interrupt

    hear_interrupt(end_by_interrupt)  # while what follows is imported

from components.check_reid import check_reid
from components.command import export, imageset, recipes, search
from components.command.run import run_step
from components.command.step import Step, read_docstring
from components.command.suggestion import suggestion
from components.evaluate import evaluate
from components.experiments import compare, prune
from components.extract_features import extract_features
from components.generate_textures import generate_textures
from components.make_pit import make_pit
from components.prepare_reid import prepare_reid
from components.process.compute_threads import limit_threads
from components.process.messages import leave_last_words
from components.process.signals import die_with_parent
from components.process.torchrun import AGENT_VARIABLE, process_count
from components.seal_features import seal_features
from components.seal_textures import seal_textures
from components.take_generator import take_generator
from components.take_model import take_model
from components.train_san import train_san
from components.train_san_pg import train_san_pg
from components.training.heartbeats import beating_in_company

# In the order data flows.
STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        make_pit,
        prepare_reid,
        check_reid,
        train_san_pg,
        take_generator,
        generate_textures,
        seal_textures,
        train_san,
        take_model,
        extract_features,
        seal_features,
        evaluate,
    )
}

# What is beside the steps.
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "imageset": imageset.run_imageset,
    "recipes": recipes.run_recipes,
    "search": search.run_search,
    "export": export.run_export,
    "compare": compare.run_compare,
    "prune": prune.run_prune,
}


def usage() -> str:
    """What `python -m components` says: the steps, each with its first line."""
    width = max(map(len, STEPS))
    return "\n".join(
        [
            "usage: python -m components STEP [--flag value ...]",
            "",
            "steps, in the order data flows:",
            *(f"  {name:{width}}  {read_docstring(step).summary}" for name, step in STEPS.items()),
            "",
            "python -m components STEP --help explains one step;",
            "python -m components recipes [NAME] shows how networks are trained;",
            "python -m components imageset ls|verify|extract PLACE looks into what steps write;",
            "python -m components search --help finds people in pictures of your own;",
            "python -m components export --help makes models of states, and ONNX files of models;",
            "python -m components compare RUN RUN sets runs beside each other on a page;",
            "python -m components prune shows what is kept and needed no more.",
        ]
    )


def main(argv: Sequence[str]) -> int:
    """Run the step (or other command) named first with the words that follow; return the status."""
    if not argv:
        return _refuse(usage())
    if argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *words = argv
    if name in COMMANDS:
        return COMMANDS[name](words)
    if name not in STEPS:
        known = suggestion(name, [*STEPS, *COMMANDS])
        return _refuse(f"components: no step {name!r}{known}")
    return run_step(STEPS[name], words, company=beating_in_company)


def _refuse(message: str, status: int = 2) -> int:
    """Say what is wrong, on stderr and to Kubernetes; returns the exit status."""
    leave_last_words(message)
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    try:
        limit_threads()
        if process_count() > 1:  # else torch tells of a lost store with a page of its own calls
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            if AGENT_VARIABLE in os.environ:  # torchrun is the parent
                die_with_parent(os.getppid())
    except ValueError as error:
        sys.exit(_refuse(f"components: {error}", 1))
    os.environ["MPLBACKEND"] = "Agg"  # what a notebook has set may not be installed here
    hear_interrupt(signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
