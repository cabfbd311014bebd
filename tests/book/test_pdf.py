"""Pages become one document: links lead into it, players become pictures, sheets are counted."""

import pytest

from avnb.book import pdf
from avnb.book.parts import BookError

HEAD = """<head><link rel="stylesheet" href="_static/book.css"/></head>
<div class="bd-links"><a class="reference internal" href="#">Home</a><p class="caption">Part</p>
<a class="reference internal" href="chapters/one.html">One</a>
<a class="reference internal" href="reference/index.html">The package</a></div>"""
FIRST = """<article><h1>A &lt;title&gt;<a class="headerlink" href="#x">#</a></h1>
<a id="id1" href="chapters/one.html#id1">there</a> <a href="reference/index.html">package</a>
<a href="https://example.org">far</a></article>"""
SECOND = """<article><section id="one"><p id="id1">Here, and <a href="../index.html">back</a>,
<a href="#id1">here</a>.</p><img src="../_images/a.png"/><img src="data:image/png;base64,AA"/>
<video src="../_static/media/a.mp4" poster="../_static/media/a.jpg" aria-label="a bell"></video>
<audio><source src="data:audio/wav;base64,AA"/></audio>
<details class="hide">folded</details><button>copy</button></section></article>"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "index.html").write_text(f"<html>{HEAD}{FIRST}</html>")
    (tmp_path / "chapters/one.html").write_text(f"<html>{SECOND}</html>")
    return tmp_path


def test_ids_and_links_are_those_of_the_document(folder):
    text, pages = pdf.document(folder, "smoke")
    assert [(p.anchor, p.part) for p in pages] == [("index", ""), ("chapters-one", "Part")]
    assert 'href="#chapters-one.id1" id="index.id1"' in text and 'id="chapters-one.id1"' in text
    assert '<a href="#index">back</a>' in text and '<a href="#chapters-one.id1">here</a>' in text
    assert 'href="https://example.org"' in text and "</a> package\n" in text
    assert "<title>A &lt;title&gt;</title>" in text and "its numbers mean nothing" in text


def test_what_cannot_be_used_on_paper_is_not_printed(folder):
    text, _ = pdf.document(folder, "")
    assert 'src="_images/a.png"' in text and 'src="data:image/png' in text
    assert 'alt="a bell"' in text and 'src="_static/media/a.jpg"' in text
    assert "(Audio: see the web page.)" in text
    assert not any(word in text for word in ("<video", "<audio", "folded", "copy", "headerlink"))


def test_contents_give_the_sheets_on_which_pages_begin(folder):
    text = b"1 0 obj\n2 0 obj\n<</Type /Page\n>>\n7 0 obj\n<</Type /Page\n>>\n8 0 obj\n"
    text += b"<</Type /Pages\n>>\n"
    text += b"<</index [2 0 R /XYZ 1 2 0]\n/chapters-one [7 0 R /XYZ 1 2 0]>>"
    assert pdf.sheets(text) == {"index": 1, "chapters-one": 2}
    said = pdf.contents(pdf.document(folder, "")[1], pdf.sheets(text))
    assert '<a href="#chapters-one">One</a><span>2</span>' in said and ">Part<" in said


def test_without_chromium_it_says_how_to_get_it(monkeypatch, folder):
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(BookError, match="apt install chromium"):
        pdf.write_pdf(folder / "index.html", folder / "book.pdf")
