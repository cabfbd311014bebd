"""The book as one PDF: its built pages, one after the other, printed by Chromium."""

import html
import os
import posixpath
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag

import avnb
from avnb.book.parts import BookError
from avnb.files import replacing
from avnb.profiles import SIZES

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
    "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=600000",  # milliseconds of the page's clock: all formulae are drawn
)
LIMIT_SECONDS = 600
SCREEN_ONLY = "reference/"  # as many sheets again, which nobody reads from beginning to end
PAGE = re.compile(rb"\n(\d+) 0 obj\n<</Type /Page\n")
DESTINATION = re.compile(rb"/([\w.-]+) \[(\d+) 0 R /XYZ")
GONE = ".headerlink, button, script, style, details.hide, .widget-subarea"


@dataclass(frozen=True)
class Page:
    """A page of the book, by its address below the folder of all pages."""

    address: str  # chapters/01_data.html
    part: str  # the part of the book that it opens, or ''
    title: str

    @property
    def anchor(self) -> str:
        """What links to the page point to; those into it go on after a dot."""
        return self.address.removesuffix(".html").replace("/", "-")


def chromium() -> str:
    """The browser's program; BookError when there is none."""
    for program in PROGRAMS:
        if found := shutil.which(program):
            return found
    raise BookError(
        "a PDF is printed by Chromium, which is not installed: install your system's package "
        "(Debian: apt install chromium; macOS and Windows: Google Chrome serves as well), or read "
        "the pages in a browser"
    )


# ---- one document out of all pages -------------------------------------------------------------


def parsed(path: Path) -> BeautifulSoup:
    """A page's elements."""
    return BeautifulSoup(path.read_text(), "html.parser")


def pages_in_order(index: BeautifulSoup) -> list[Page]:
    """The pages that are printed, as the first one's navigation lists them, itself at the head."""
    pages, part = [Page("index.html", "", "About this book")], ""
    for tag in index.select(".bd-links .caption, .bd-links a.reference.internal"):
        address = str(tag.get("href", ""))
        if tag.name != "a":
            part = tag.get_text(strip=True)
        elif not address.startswith(("#", SCREEN_ONLY)):
            pages.append(Page(address, part, tag.get_text(strip=True)))
            part = ""
    return pages


def article(folder: Path, page: Page, pages: dict[str, Page]) -> Tag:
    """A page's text as a section of the document: ids and links of its own, pictures for videos."""
    found = parsed(folder / page.address).select_one("article")
    assert found is not None, page.address
    for tag in found.select(GONE):
        tag.decompose()
    for tag in found.select("video, audio"):
        still(tag)
    for tag in found.select("[id]"):
        tag["id"] = f"{page.anchor}.{tag['id']}"
    for tag in found.select("[loading]"):
        del tag["loading"]  # nothing comes into view in print
    for tag in found.select("[src]"):
        if not urlsplit(str(tag["src"])).scheme:
            tag["src"] = below(page, str(tag["src"]))
    for tag in found.select("a[href]"):
        relink(tag, page, pages)
    found.name, found.attrs = "section", {"class": "page bd-article", "id": page.anchor}
    return found


def still(player: Tag) -> None:
    """Put its poster in place of a player, or a word where it has none."""
    kind, said = player.name, {name: str(value) for name, value in player.attrs.items()}
    if poster := said.get("poster"):
        words = said.get("aria-label", "a video")
        player.attrs = {"src": poster, "alt": words, "style": said.get("style", "")}
        player.name = "img"
    else:
        player.name, player.attrs = "em", {}
        player.string = f"({kind.capitalize()}: see the web page.)"


def below(page: Page, address: str) -> str:
    """A relative address of a page as one from the folder of all pages."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page.address), address))


def relink(link: Tag, page: Page, pages: dict[str, Page]) -> None:
    """Point a link into the document; one to a file that is not in it becomes plain text."""
    address = urlsplit(str(link["href"]))
    if address.scheme:
        return
    target = pages.get(below(page, address.path) if address.path else page.address)
    if target is None:
        link.unwrap()
    else:
        fragment = f".{address.fragment}" if address.fragment else ""
        link["href"] = f"#{target.anchor}{fragment}"


def title_page(title: str, size: str) -> str:
    """The first sheet."""
    note = re.sub(r"\*+", "", SIZES.get(size, ""))
    lines = [f"avnb {avnb.__version__}", "A living research book: notebooks over a package", note]
    texts = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f'<header class="title-page"><h1>{html.escape(title)}</h1>{texts}</header>'


def contents(pages: list[Page], numbers: dict[str, int]) -> str:
    """The table of contents, with the sheets on which pages begin as far as they are known."""
    lines = ['<nav class="book-contents"><h2>Contents</h2>']
    for page in pages:
        if page.part:
            lines.append(f"<p class='part'>{html.escape(page.part)}</p>")
        number = numbers.get(page.anchor, "")
        lines.append(
            f'<p><a href="#{page.anchor}">{html.escape(page.title)}</a><span>{number}</span></p>'
        )
    return "\n".join([*lines, "</nav>"])


def document(folder: Path, size: str) -> tuple[str, list[Page]]:
    """The HTML of the whole book, with a mark where the contents go, and its pages."""
    index = parsed(folder / "index.html")
    pages = pages_in_order(index)
    known = {page.address: page for page in pages}
    title = index.select("h1")[0].get_text().removesuffix("#")
    styles = "".join(map(str, index.select("head link[rel=stylesheet]")))
    maths = [tag for tag in index.select("head script") if "mathjax" in str(tag).lower()]
    texts = "".join(str(article(folder, page, known)) for page in pages)
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"><title>{html.escape(title)}</title>{styles}'
        f'<link rel="stylesheet" href="_static/print.css">{"".join(map(str, maths))}</head>'
        f"<body>{title_page(title, size)}<!--contents-->{texts}</body></html>"
    ), pages


# ---- printing ----------------------------------------------------------------------------------


def printed(folder: Path, text: str) -> bytes:
    """A document that lies among the pages as a PDF.

    Raises:
        BookError: when there is no Chromium, or it prints nothing.
    """
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="avnb-pdf-") as name:
        source, out = folder / f".print-{os.getpid()}.html", Path(name) / "book.pdf"
        command = [chromium(), *OPTIONS, *root, f"--user-data-dir={name}/profile"]
        command += [f"--print-to-pdf={out}", source.as_uri()]
        source.write_text(text)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise BookError(f"Chromium has printed nothing in {LIMIT_SECONDS} s") from error
        finally:
            source.unlink()
        if not out.exists():
            raise BookError(f"Chromium printed nothing:\n{done.stderr[-2000:]}")
        return out.read_bytes()


def write_pdf(index: Path, out: Path, size: str = "") -> Path:
    """Print the book whose first page is `index`; twice, for the numbers in its contents.

    Args:
        index: `index.html` of the built pages.
        out: the PDF.
        size: the profile that the pages were made with.

    Raises:
        BookError: as `printed`.
    """
    chromium()
    text, pages = document(index.parent, size)
    first = printed(index.parent, text.replace("<!--contents-->", contents(pages, {})))
    filled = contents(pages, sheets(first))
    with replacing(out) as partial:
        partial.write_bytes(printed(index.parent, text.replace("<!--contents-->", filled)))
    return out


def sheets(pdf: bytes) -> dict[str, int]:
    """The number of the sheet of each named destination; Chromium writes them plainly."""
    order = {page: i for i, page in enumerate(PAGE.findall(pdf), 1)}
    return {name.decode(): order[page] for name, page in DESTINATION.findall(pdf) if page in order}
