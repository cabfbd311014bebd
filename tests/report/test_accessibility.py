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


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_can_be_read_by_everybody(shown, scheme):
    """Contrast, names and order of what is on a page, by axe-core."""
    for one in shown:
        if one.folder == "reference" and one.stem != "models":
            continue  # one of pages that are made alike, and large
        one.page.bring_to_front()
        one.page.emulate_media(color_scheme=scheme)
        one.page.wait_for_function(
            "s => document.documentElement.dataset.theme === s", arg=scheme, timeout=10_000
        )
        if scheme == "light":
            one.page.add_style_tag(content="* { transition: none !important; }")
            one.page.evaluate(AXE)
        found = one.page.evaluate(
            "([where, rules]) => axe.run(where, {runOnly: rules, resultTypes: ['violations']})",
            [{"include": ["body" if one.stem == "index" else "article"], "exclude": SAME}, RULES],
        )
        wrong = [(v["id"], n["html"][:200]) for v in found["violations"] for n in v["nodes"]]
        assert not wrong, f"{one.stem}, {scheme}: {wrong}"
        assert found["passes"], one.stem
