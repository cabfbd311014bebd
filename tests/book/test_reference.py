"""The reference names everything that is public, and shows docstrings as they are written."""

import re

import pytest
from markdown_it import MarkdownIt

from avnb.book import reference
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    reference.write_reference(folder)
    return {path.stem: path.read_text() for path in folder.glob("*.md")}


def test_every_module_is_in_the_reference_once_and_every_page_in_the_book(pages):
    found = re.findall(r"^\((avnb[.a-z0-9_]+)\)=\n## ", "\n".join(pages.values()), re.MULTILINE)
    files = [p.relative_to(ROOT).with_suffix("") for p in (ROOT / "avnb").rglob("*.py")]
    names = {".".join(f.parts) for f in files if f.name != "__main__"}
    packages = {"avnb.__init__", *(f"avnb.{page}.__init__" for page in pages)}
    assert sorted(found) == sorted(name.removesuffix(".__init__") for name in names - packages)
    contents = (ROOT / "book/_toc.yml").read_text()
    assert all(f"file: reference/{page}\n" in contents for page in pages)


def test_what_others_rely_on_is_there(pages):
    assert (
        "def rince(pos: Tensor, neg: Tensor, *, q: float, lam: float) -> Tensor\n"
        in pages["models"]
    )
    assert "### VideoEncoder\n" in pages["models"]
    assert "### load\\_released\n" in pages["training"]
    assert "### recall\n" in pages["evaluation"]
    assert "frame_px: int = within(1, 4096, 224)  # height and width" in pages["foundations"]
    assert "def _" not in "".join(pages.values()).replace("def __init__", "")


def test_text_is_shown_as_it_is_written():
    doc = "A *star*, `a_b*`, <id>_x_ and $5 {x}`y`.\n\nArgs:\n    x: [B] a_b,\n        or None."
    first, second = reference.prose(doc)
    (shown,) = (t for t in MarkdownIt().parse(first) if t.type == "inline")
    assert "".join(t.content for t in shown.children) == "A *star*, a_b*, <id>_x_ and $5 {x}y."
    assert second == "**Arguments**\n\n- `x`: [B] a\\_b, or None."
    assert list(reference.prose("    a = b\n  c = d")) == ["```text\n  a = b\nc = d\n```"]
