"""Whether everybody can read the pages of the book, by axe-core in a real browser."""

from importlib import resources

import pytest

pytestmark = pytest.mark.slow
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text()
RULES = [  # of axe-core: https://github.com/dequelabs/axe-core/blob/develop/doc/rule-descriptions.md
    "button-name", "color-contrast", "frame-title", "heading-order", "image-alt", "label",
    "link-name", "list", "listitem", "scrollable-region-focusable", "svg-img-alt",
]  # fmt: skip
SAME = [  # as the first
    "tbody tr:nth-child(n+4)", "mjx-container", ".members:nth-of-type(n+4)", "dd pre",
]  # fmt: skip
PALE = "<p style='color: #ddd; background: #eee'>pale</p><img src=''>"


@pytest.fixture(scope="module")
def tab(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 1200})
    yield context.new_page()
    context.close()


def violations(tab, where, scheme):
    tab.emulate_media(color_scheme=scheme)
    theme = "s => document.documentElement.dataset.theme === s"
    tab.wait_for_function(theme, arg=scheme, timeout=10_000)
    found = tab.evaluate(
        "([where, rules]) => axe.run(where, {runOnly: rules, resultTypes: ['violations']})",
        [{"include": [where], "exclude": SAME}, RULES],
    )
    assert found["passes"], tab.url
    return [(v["id"], n["html"][:200]) for v in found["violations"] for n in v["nodes"]]


@pytest.mark.timeout(1200)
def test_pages_can_be_read_by_everybody(tab, pages):
    """Contrast, names and order of what is on a page, by axe-core, in the light and the dark."""
    for path in pages:
        if path.parent.name == "reference" and path.stem != "models":
            continue  # one of pages that are made alike, and large
        tab.goto(path.as_uri())
        tab.add_style_tag(content="* { transition: none !important; }")
        tab.evaluate(AXE)
        for scheme in ("light", "dark"):
            wrong = violations(tab, "body" if path.stem == "index" else "article", scheme)
            assert not wrong, f"{path.stem}, {scheme}: {wrong}"


def test_what_cannot_be_read_is_found(tab, pages):
    tab.goto(pages[0].as_uri())
    tab.evaluate(AXE)
    assert not violations(tab, "article", "light")
    tab.locator("article").evaluate("(e, html) => e.insertAdjacentHTML('beforeend', html)", PALE)
    found = {rule for rule, _ in violations(tab, "article", "light")}
    assert found == {"color-contrast", "image-alt"}
