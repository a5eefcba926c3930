"""The Markdown files of the checkout: their code, their headings and their links."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from components.command.code import ROOT

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"<!-- parameters -->.*?<!-- /parameters -->", re.DOTALL)


@cache
def documents() -> tuple[Path, ...]:
    """Every Markdown file of the project, results aside."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [ROOT / line for line in done.stdout.splitlines()]
    return tuple(file for file in sorted(set(found)) if "results" not in file.parts)


def name_of(file: Path) -> str:
    """How a document is called in the checkout."""
    return file.relative_to(ROOT).as_posix()


class Command(NamedTuple):
    """A command as a document has it."""

    file: str
    text: str  # on one line

    @property
    def words(self) -> list[str]:
        """What the shell gives the program, without variables set in front and without comments."""
        words = shlex.split(self.text, comments=True)
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        return words


def commands() -> Iterator[Command]:
    """Every command in the code blocks of the documents, in their order."""
    for file in documents():
        for block in code_blocks(file):
            for line in block.replace("\\\n", " ").splitlines():
                text = re.sub(r"\s+", " ", line).strip()
                if _PROGRAM.match(text):
                    for part in text.split(" && "):
                        yield Command(name_of(file), part)


_PROGRAM = re.compile(
    r"(\w+=\S* )*(\.venv/bin/\w+|python3?|/tmp/\S+/python|pip|make|docker|torchrun|kubectl|aws"
    r"|mkdir|export|git|sha256sum)\b"
)


def code_blocks(file: Path) -> list[str]:
    """The shell's code of a document: indented by four blanks, or in a fence without a language."""
    text = file.read_text("utf-8")
    fenced = [body for language, body in _FENCE.findall(text) if language in ("", "sh")]
    lines = _FENCE.sub("", text).splitlines()
    indented = "\n".join(line for line in lines if line.startswith("    "))
    return [*fenced, indented]


def python_blocks(file: Path) -> list[str]:
    """The Python code of a document."""
    return [
        body for language, body in _FENCE.findall(file.read_text("utf-8")) if language == "python"
    ]


def prose(file: Path) -> str:
    """A document without its code."""
    text = _FENCE.sub("", file.read_text("utf-8"))
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def links(file: Path) -> list[str]:
    """The targets of a document's links and pictures."""
    return re.findall(r"\]\(([^()\s]+)\)", prose(file))


def anchors(file: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+)$", _FENCE.sub("", file.read_text("utf-8")), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = found.get(anchor, -1) + 1
        found[anchor] = number
        if number:
            found[f"{anchor}-{number}"] = 0
    return set(found)
