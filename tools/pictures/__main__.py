"""`python -m tools.pictures`: draw the pictures of the README files anew.

`overview.png` needs a finished run of the demo, whose features give the ranked row; `atlas.png`
needs nothing.
"""

import argparse
from pathlib import Path

from components.command.code import ROOT
from tools.pictures import atlas, overview

FOLDER = Path(__file__).parent


def main() -> None:
    """Write both pictures beside this file, or into another folder."""
    parser = argparse.ArgumentParser(prog="python -m tools.pictures", description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo", help="a finished run")
    parser.add_argument("--query", type=int, default=0, help="which query of the run to show")
    parser.add_argument("--person", type=int, default=5, help="which rendered person to show")
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: in tools/pictures")
    chosen = parser.parse_args()
    atlas.draw_atlas().save(chosen.output / "atlas.png", optimize=True)
    overview.draw_overview(chosen.run, query=chosen.query, person=chosen.person).save(
        chosen.output / "overview.png", optimize=True
    )


if __name__ == "__main__":
    main()
