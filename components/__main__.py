"""`python -m components STEP ...`: the command in a shell and in the images."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial

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
from components.nodes.on_nodes import run_on_nodes
from components.prepare_reid import prepare_reid
from components.process.compute_threads import limit_threads
from components.process.messages import (
    drop_output,
    is_output_closed,
    leave_last_words,
    open_standard_streams,
    os_error_message,
)
from components.process.signals import die_with_parent
from components.process.torchrun import AGENT_VARIABLE, MULTI_PROCESS_STEPS, process_count
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

# Commands that are not steps.
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "imageset": imageset.run_imageset,
    "recipes": recipes.run_recipes,
    "search": search.run_search,
    "export": export.run_export,
    "compare": compare.run_compare,
    "prune": prune.run_prune,
    "on_nodes": partial(
        run_on_nodes, {name: STEPS[name] for name in STEPS if name in MULTI_PROCESS_STEPS}
    ),
}


def usage() -> str:
    """The help of `python -m components`: the steps with a line each, and the other commands."""
    width = max(map(len, STEPS))
    return "\n".join(
        [
            "usage: python -m components STEP [--flag value ...]",
            "",
            "steps, in the order data flows:",
            *(f"  {name:{width}}  {read_docstring(step).summary}" for name, step in STEPS.items()),
            "",
            "python -m components STEP --help explains one step;",
            "python -m components recipes [NAME] lists the training recipes, or one in full;",
            "python -m components imageset ls|verify|extract PLACE reads the image sets of steps;",
            "python -m components search --help finds people in your own pictures;",
            "python -m components export --help turns checkpoints into models, models into ONNX;",
            "python -m components compare RUN RUN compares runs on one page;",
            "python -m components prune lists stored files that are no longer needed;",
            "python -m components on_nodes runs a step on several nodes, in a pod of --nodes.",
        ]
    )


def main(argv: Sequence[str]) -> int:
    """Run the step or command that the first word names; return the exit status."""
    who = argv[0] if argv and argv[0] in COMMANDS else "components"
    try:
        status = _run_command(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:  # of a command; steps hear it themselves
        return _refuse(f"{who}: stopped by Ctrl-C", 130)
    except OSError as error:  # of standard output, for all others are told of where they arise
        if isinstance(error, BrokenPipeError) and is_output_closed():
            return drop_output()
        return _refuse(f"{who}: {os_error_message(error)}", 1)
    return status


def _run_command(argv: Sequence[str]) -> int:
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
    """Report an error on stderr and to Kubernetes; return the exit status."""
    leave_last_words(message)
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    open_standard_streams()
    try:
        limit_threads()
        if process_count() > 1:  # else torch prints a page of its own calls when its store is lost
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            if AGENT_VARIABLE in os.environ:  # torchrun is the parent
                die_with_parent(os.getppid())
    except ValueError as error:
        sys.exit(_refuse(f"components: {error}", 1))
    os.environ["MPLBACKEND"] = "Agg"  # the backend of a notebook may not be installed here
    hear_interrupt(signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
