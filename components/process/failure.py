"""The one line that says why a step ends, on stderr and in the termination message."""

import sys
import time

from components.process.messages import leave_last_words, printable
from components.process.torchrun import is_first_of_node, process_name

SECONDS_FOR_FIRST = 15.0


def report_failure(step: str, message: str, *, status: int = 1) -> int:
    """Report in one line why the step ends; return the exit status.

    An error of one process is usually an error of all. So the first process of each node reports
    it, and the others wait for torchrun to end them.
    """
    if not is_first_of_node():
        time.sleep(SECONDS_FOR_FIRST)
    name = process_name()
    return write_failure(f"{step}, {name}" if name else step, message, status=status)


def write_failure(who: str, message: str, *, status: int = 1) -> int:
    """Write a line to stderr and to the termination message; return the exit status."""
    line = printable(f"{who}: {' '.join(message.split())}")
    leave_last_words(line)
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
    return status
