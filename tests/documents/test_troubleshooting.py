"""The messages that TROUBLESHOOTING.md explains are those that the code writes."""

import re

import pytest

from components.command.code import ROOT

FILE = ROOT / "components" / "TROUBLESHOOTING.md"
MESSAGES = re.findall(r"^### (.+)$", FILE.read_text("utf-8"), re.MULTILINE)
# What differs: names in capitals, numbers, brackets, words of the operating system, and what the
# code joins from parts.
PLACEHOLDER = re.compile(
    r"\w+=[A-Z]{3,}|\b[A-Z][A-Z_]{3,}\b|\bURL\b|L_Triplet|\([^)]*\)|\.\.\.|\d[\dx.]*"
    r"|Permission denied|Connection refused|, but|on the GPU"
)


@pytest.fixture(scope="module")
def written():
    """The code, with texts that go over several lines in one."""
    files = [file for top in ("components", "san_core") for file in (ROOT / top).rglob("*.py")]
    code = "\n".join(file.read_text("utf-8") for file in [*files, ROOT / "Makefile"])
    return re.sub(r'"\s*\n\s*f?"', "", code)


def fixed_parts(message: str) -> list[str]:
    """The words of a message that are always the same, but for very short ones."""
    return [part.strip(" :,;") for part in PLACEHOLDER.split(message) if len(part.strip()) > 5]


def test_at_least_ten_messages_are_explained():
    assert len(MESSAGES) >= 10


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_writes_the_message(message, written):
    parts = fixed_parts(message)
    assert parts
    assert [part for part in parts if part not in written] == []


def test_another_message_is_noticed(written):
    assert fixed_parts("no such thing as PLACE was found")[0] not in written
