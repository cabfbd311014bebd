"""Figures and tables as files, from what is stored."""

import contextvars

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from avnb.__main__ import main
from avnb.book import figures, numbering, style
from avnb.evaluation import results
from avnb.evaluation.encoder_source import encoder_sources
from avnb.profiles import STORED_ONLY, Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("AVNB_BUILD", str(tmp_path))
    return Workspace.open("smoke")


def drawn(work, only, out):
    """Drawn in this process, which forgets that only what is stored may be used."""
    out.mkdir()
    for job in figures.chosen(only).items():
        options = {"work": work, "style": "paper", "formats": figures.FORMATS, "out": out}
        contextvars.copy_context().run(figures.draw_chapter, job, **options)


def test_the_same_bytes_from_run_to_run_with_text_as_text(work, tmp_path, monkeypatch):
    monkeypatch.setenv("AVNB_STYLE", "")
    only, first = ["4", "table-0.1"], tmp_path / "first"
    options = ["--only", ",".join(only), "--profile", "smoke", "--out", str(first)]
    assert main(["figures", *options]) == 0
    drawn(work, only, tmp_path / "second")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()}
                for f in ("first", "second"))  # fmt: skip
    assert one == two
    names = {f"figure-4.{i}-{name}.{end}" for i, name in ((1, "landscape"), (2, "pull"))
             for end in ("pdf", "png", "svg")}  # fmt: skip
    assert one.keys() == names | {f"table-0.1-literature.{end}" for end in ("csv", "tex")}
    assert b"cosine of the pair" in one["figure-4.2-pull.svg"]
    assert b"/FontFile2" in one["figure-4.2-pull.pdf"]
    assert b"VideoMAE" in one["table-0.1-literature.csv"]
    assert rb"\begin{tabular}" in one["table-0.1-literature.tex"]


def test_a_caption_does_not_comment_the_rest_of_its_line_out(tmp_path):
    caption = numbering.Caption("Table", "1.1", "tab-one", "Shares in % of R&D #1.")
    figures.write_table(pd.DataFrame({"a": [1.5]}), caption, tmp_path)
    text = (tmp_path / "table-1.1-one.tex").read_text()
    assert r"\caption{Shares in \% of R\&D \#1.}" in text and r"\label{tab:one}" in text


def test_a_style_scales_a_figure_and_its_text():
    sizes = {}
    for name in ("book", "slides", "paper"):
        fig, ax = plt.subplots(figsize=(9, 3))
        ax.set_title("title", fontsize=10)
        style.fit_to_style(fig, name)
        sizes[name] = (*fig.get_size_inches(), ax.title.get_fontsize())
        plt.close(fig)
    assert sizes["book"] == (9, 3, 10)
    assert sizes["paper"][0] < 9 < sizes["slides"][0] and sizes["paper"][2] < 10
    assert all(w / h == pytest.approx(3) for w, h, _ in sizes.values())


@pytest.mark.parametrize(
    "options, told",
    [
        ({"only": ["4.9"]}, "no figure or table is called '4.9'; there are figure-0.1-approaches"),
        ({"style": "papers"}, "did you mean 'paper'"),
        ({"formats": ["pfd"]}, "did you mean 'pdf'"),
    ],
)
def test_what_does_not_exist_is_told(work, options, told):
    with pytest.raises(ValueError, match=told):
        figures.draw(work, **options)


def test_nothing_is_trained_and_nothing_stored(work, world):
    token = STORED_ONLY.set(True)
    try:
        with pytest.raises(ValueError, match="has not been trained to its end"):
            encoder_sources(work, "xid", data=str(world / "vggsound"))
        row = results.Row(task="probe", metric="top1", value=1, method="xid", dataset="ucf101")
        assert len(results.record(work.results, [row])) == 1 and not work.results.exists()
    finally:
        STORED_ONLY.reset(token)
