import pandas as pd
import pytest

from avnb.book import cover
from avnb.book.findings import CLAIMS, FindingsTable, describe_findings, findings_table
from avnb.evaluation.results import Row, append, frame
from avnb.evaluation.retrieval import THESIS


def probe(method, value, task="probe"):
    return Row(
        task=task, metric="top1", level="video", method=method, dataset="ucf101", value=value,
        low=value - 5, high=value + 5, n=100, chance=8.3, protocol="thesis",
    )  # fmt: skip


def retrieval(level, value):
    return Row(
        task="retrieval", metric="R@5", level=level, space=THESIS, method="xid", dataset="ucf101",
        value=value, low=value - 5, high=value + 5, n=100, chance=40, protocol="thesis",
    )  # fmt: skip


def judged(*rows, seeds=()):
    table = findings_table(*(frame(map(vars, some)) for some in (rows, seeds)))
    return dict(zip(table["claim"], table["here"], strict=True)), table


def test_without_rows_nothing_is_claimed():
    verdicts, table = judged()
    assert set(verdicts.values()) == {"not measured"} and len(verdicts) == len(CLAIMS)
    assert describe_findings(table) == "Of the thesis's ten claims, ten were not measured here."


@pytest.mark.parametrize("xid, said", [(60, "supported"), (33, "left open"), (10, "contradicted")])
def test_intervals_decide(xid, said):
    verdicts, table = judged(probe("random", 30), probe("xid", xid))
    first = CLAIMS[0].text
    assert verdicts[first] == said
    assert f"xID {xid:.1f}" in table.set_index("claim").loc[first, "numbers"]


def test_a_claim_of_failure_is_contradicted_by_success():
    fails = next(c.text for c in CLAIMS if "no higher" in c.text)
    for value, said in ((10, "supported"), (90, "contradicted")):
        rows = probe("random", 50, "finetune"), probe("vicreg_av", value, "finetune")
        assert judged(*rows)[0][fails] == said
    across = next(c.text for c in CLAIMS if "no better than chance" in c.text)
    within = next(c.text for c in CLAIMS if c.text.startswith("Within video"))
    for value, ups in ((80, ("contradicted", "supported")), (30, ("supported", "left open"))):
        verdicts, _ = judged(retrieval("v->a", value), retrieval("v->v", value))
        assert (verdicts[across], verdicts[within]) == ups


def test_the_last_row_counts_and_other_protocols_do_not():
    first = CLAIMS[0].text
    author = Row(**{**vars(probe("xid", 10)), "protocol": "author"})
    again = Row(**{**vars(probe("xid", 90)), "run": "xid-new"})
    assert judged(probe("random", 30), probe("xid", 10), again, author)[0][first] == "supported"


def test_contradicted_claims_are_named_with_their_chapter():
    _, table = judged(probe("random", 30), probe("xid", 10), probe("supervised", 12))
    said = describe_findings(table)
    assert "one is contradicted, one is left open and eight were not measured here." in said
    assert f"Contradicted in [its chapter](07_probe.ipynb): “{CLAIMS[0].text[:-1]}”" in said


def test_other_seeds_may_turn_a_verdict():
    rows = [probe("random", 30), probe("xid", 60), probe("supervised", 12)]
    seeds = [probe("random", 30), probe("xid", 33)]
    verdicts, table = judged(*rows, seeds=seeds)
    assert verdicts[CLAIMS[0].text] == "supported"
    assert table["seeds"].tolist()[:2] == ["left open", "not measured"]
    said = describe_findings(table)
    assert said.endswith(
        f"Of one claim that the studies judge over several seeds, “{CLAIMS[0].text[:-1]}” is "
        "left open instead of supported."
    )
    text = FindingsTable(table)._repr_html_()
    assert text.count("<td>left open</td>") == 1 and text.count("<td>–</td>") >= len(CLAIMS) - 1
    same = describe_findings(judged(*rows, seeds=rows)[1])
    assert same.endswith(
        "Of two claims that the studies judge over several seeds, each has the same verdict there."
    )


def test_the_table_links_to_chapters():
    text = FindingsTable(judged(probe("random", 30), probe("xid", 60))[1])._repr_html_()
    assert '<a href="07_probe.ipynb">supported</a>' in text
    assert text.count("<tr>") == len(CLAIMS) + 1
    assert isinstance(FindingsTable(pd.DataFrame()).data, pd.DataFrame)


def test_the_cover_shows_the_last_rows_and_is_left_out_without_any(tmp_path):
    path = tmp_path / "results.jsonl"
    assert cover.draw(path, "smoke", tmp_path) == "" and not list(tmp_path.iterdir())
    append(path, [probe("random", 12.5), probe("xid", 30.0), probe("xid", 41.7)])
    text = cover.draw(path, "smoke", tmp_path)
    assert "xID 41.7 [36.7, 46.7]" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "mean nothing" in text
    drawn = (tmp_path / "cover.svg").read_text()
    assert "41.7" in drawn and "30.0" not in drawn
    assert (tmp_path / "icon.svg").exists()
