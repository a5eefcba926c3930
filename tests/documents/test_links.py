"""Links, anchors and paths of the Markdown files lead somewhere."""

import json
import re

import pytest

from components.command.code import ROOT
from tests.documents.markdown import anchors, documents, links, name_of, prose
from tools.readme import README_FILES, renew_tables

# A path of the checkout as documents write it: in a folder of ours, or a source file.
PATH = re.compile(
    r"(?<![\w./-])((?:components|san_core|tests|tools|docker|\.ci)/(?:[\w.-]+/)*"
    r"[\w-]+(?:\.\w+)*/?|(?:\w+/)*\w+\.(?:py|pyx|jinja))(?![\w*{(])"
)
each_document = pytest.mark.parametrize("file", documents(), ids=name_of)


def test_the_documents_are_found():
    expected = {"README.md", "components/README.md", "docker/README.md", "san_core/README.md"}
    assert expected | {"tests/README.md"} <= {name_of(file) for file in documents()}


@each_document
def test_links_lead_to_a_file_and_to_a_heading_of_it(file):
    lost = []
    for link in links(file):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path) if path else file
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


@each_document
def test_paths_are_there(file):
    missing = [
        path
        for path in PATH.findall(prose(file))
        if not re.search(r"\b(NAME|GROUP)\b", path)  # stand for what differs
        and not any((folder / path).exists() for folder in (ROOT, file.parent))
    ]
    assert missing == []


def test_anchors_are_those_of_github(tmp_path):
    file = tmp_path / "a.md"
    file.write_text("# One, two\n## `make test` & more\n## One, two\n```\n# no heading\n```\n")
    assert anchors(file) == {"one-two", "make-test--more", "one-two-1"}


@each_document
def test_generated_parts_are_up_to_date(file):
    text = file.read_text("utf-8")
    assert text == renew_tables(text), "run `python -m tools.readme`"


def test_every_document_with_generated_parts_is_renewed():
    generated = {name_of(file) for file in documents() if "<!-- /" in file.read_text("utf-8")}
    assert generated <= set(README_FILES)


def test_the_measured_ratio_of_a_step_is_the_one_that_is_told():
    measured = json.loads((ROOT / "tests" / "results" / "training.json").read_bytes())
    ratio = measured["figures"]["training.light_decoder_vs_baseline"]["value"]
    told = " ".join((ROOT / "tests" / "README.md").read_text("utf-8").split())
    assert f"{ratio:.2f} times as long" in told


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200
