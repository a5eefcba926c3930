"""`python -m san_core.evaluation.check` proves in seconds that the compiled loops are sound.

It prints the findings of `soundness`. The exit status is 1 if anything differs or nothing is
compiled.
"""

import sys


def main() -> int:
    """Print the findings; returns the exit status."""
    try:
        from san_core.evaluation.check.soundness import verify_compiled_loops

        for line in verify_compiled_loops():
            sys.stdout.write(line + "\n")
    except (ImportError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
