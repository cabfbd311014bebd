"""What the thesis claims, and what the rows of this book say to it."""

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from avnb.book.style import method_title
from avnb.book.wording import counted, listed, number, sentence, side, with_interval
from avnb.evaluation.retrieval import THESIS

SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "left open"
MISSING = "not measured"
VERDICTS = {1: SUPPORTED, -1: CONTRADICTED, 0: OPEN}  # by `side` of the one that is to lie above
Verdict = tuple[str, str]  # of the above, and the numbers it rests on
BASELINES = {"centre": "the middle of the frame"}  # what is no method, in words
ACCURACY: dict[str, Any] = {"level": "video", "metric": "top1", "dataset": "ucf101"}
PROBE, TUNED = {"task": "probe", **ACCURACY}, {"task": "finetune", **ACCURACY}
SAME = ["task", "level", "metric", "space", "method", "dataset"]


def measured(rows: pd.DataFrame, **values: str) -> dict[Any, Any] | None:
    """The last row with these values; None where there is none."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return None if rows.empty else rows.iloc[-1].to_dict()


def numbers(*rows: dict[Any, Any]) -> str:
    """`xID 57.3 [47.3, 66.7] %, Random 30.2 [21.9, 40.0] %`."""
    titles = (BASELINES.get(row["method"]) or method_title(row["method"]) for row in rows)
    return ", ".join(
        f"{title} {with_interval(row)}\N{NO-BREAK SPACE}%"
        for title, row in zip(titles, rows, strict=True)
    )


def is_above(rows: pd.DataFrame, one: str, other: str, **chosen: str) -> Verdict:
    """Whether the first method lies above the other, in the rows with these values."""
    found = [measured(rows, method=method, **chosen) for method in (one, other)]
    if found[0] is None or found[1] is None:
        return MISSING, ""
    return VERDICTS[side(found[0], found[1])], numbers(found[0], found[1])


def is_not_above(rows: pd.DataFrame, one: str, other: str, **chosen: str) -> Verdict:
    """Whether the first method fails to lie above the other."""
    verdict, said = is_above(rows, one, other, **chosen)
    turned = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED, OPEN: OPEN, MISSING: MISSING}
    return turned[verdict], said


def retrieves(rows: pd.DataFrame, level: str, *, above: bool) -> Verdict:
    """Whether xID's recall@5 in a direction lies above chance, as claimed or as denied."""
    chosen = {"task": "retrieval", "metric": "R@5", "space": THESIS, "dataset": "ucf101"}
    row = measured(rows, method="xid", level=level, **chosen)
    if row is None:
        return MISSING, ""
    is_better = row["low"] > row["chance"]
    verdict = SUPPORTED if is_better == above else (CONTRADICTED if is_better else OPEN)
    return verdict, f"{numbers(row)}, chance {row['chance']:.1f}\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class Claim:
    """A claim of the thesis, in our words."""

    text: str
    where: str  # section or table of the thesis
    chapter: str  # file of the chapter that measures it
    judge: Callable[[pd.DataFrame], Verdict]


CLAIMS = (
    Claim(
        "xID's frozen features separate classes better than an untrained encoder's.",
        "4.2.1", "07_probe", partial(is_above, **PROBE, one="xid", other="random"),
    ),
    Claim(
        "xID's frozen features separate classes better than the supervised baseline's.",
        "4.2.1", "07_probe", partial(is_above, **PROBE, one="xid", other="supervised"),
    ),
    Claim(
        "xID's frozen features separate classes better than VICReg-V's, which come second.",
        "4.2.1", "07_probe", partial(is_above, **PROBE, one="xid", other="vicreg_v"),
    ),
    Claim(
        "With audio, VICReg learns less than without: VICReg-V lies above VICReg-AV.",
        "4.2.3", "07_probe", partial(is_above, **PROBE, one="vicreg_v", other="vicreg_av"),
    ),
    Claim(
        "Fine-tuned, xID ends above a random initialisation.",
        "4.2.2", "09_finetuning", partial(is_above, **TUNED, one="xid", other="random"),
    ),
    Claim(
        "Fine-tuned, VICReg-AV ends no higher than a random initialisation.",
        "4.2.3", "09_finetuning",
        partial(is_not_above, **TUNED, one="vicreg_av", other="random"),
    ),
    Claim(
        "Within video, xID retrieves videos of the same class.",
        "A.1", "12_retrieval", partial(retrieves, level="v->v", above=True),
    ),
    Claim(
        "Within audio, xID retrieves videos of the same class as well.",
        "A.1", "12_retrieval", partial(retrieves, level="a->a", above=True),
    ),
    Claim(
        "From video to audio, xID's features retrieve no better than chance.",
        "A.1", "12_retrieval", partial(retrieves, level="v->a", above=False),
    ),
    Claim(
        "xID localises the source of a sound poorly.",
        "A.1", "14_localisation",
        partial(is_not_above, task="localisation", one="xid", other="centre"),
    ),
)  # fmt: skip


def findings_table(rows: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Every claim with its verdict and the numbers it rests on.

    Args:
        rows: all result rows of one profile; those of the thesis's protocol are used.
        seeds: rows of the studies, one for all seeds of pre-training of a method.
    """
    usual = rows[rows["protocol"].fillna("").isin(["", "thesis"])]
    usual = usual.drop_duplicates(SAME, keep="last")
    lines = []
    for claim in CLAIMS:
        verdict, said = claim.judge(usual)
        cells = {"claim": claim.text, "thesis": claim.where, "here": verdict, "numbers": said}
        over_seeds, _ = claim.judge(seeds)
        lines.append(cells | {"seeds": over_seeds, "chapter": claim.chapter})
    return pd.DataFrame(lines)


@dataclass(frozen=True)
class FindingsTable:
    """The table of `findings_table`, with links to the chapters."""

    data: pd.DataFrame

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{name}</th>"
            for name in ("claim of the thesis", "in", "here", "numbers", "over seeds")
        )
        lines = [
            f"<tr><td>{html.escape(r['claim'])}</td><td>{r['thesis']}</td>"
            f'<td><a href="{r["chapter"]}.ipynb">{r["here"]}</a></td>'
            f"<td>{html.escape(r['numbers']) or '–'}</td>"
            f"<td>{r['seeds'].replace(MISSING, '–')}</td></tr>"
            for r in self.data.to_dict("records")
        ]
        return f'<table class="dataframe"><thead><tr>{head}</tr></thead>{"".join(lines)}</table>'


def describe_findings(table: pd.DataFrame) -> str:
    """How many claims hold, fail, are left open or were not measured, and which fail."""
    count = Counter(table["here"])
    words = {
        SUPPORTED: ("is supported", "are supported"),
        CONTRADICTED: ("is contradicted", "are contradicted"),
        OPEN: ("is left open", "are left open"),
        MISSING: ("was not measured", "were not measured"),
    }
    parts = [
        f"{number(count[name])} {forms[count[name] != 1]}"
        for name, forms in words.items()
        if count[name]
    ]
    said = [f"of the thesis's {counted(len(table), 'claim')}, {listed(parts)} here"]
    failed = table[table["here"] == CONTRADICTED]
    said += [
        f"contradicted in [its chapter]({chapter}.ipynb): {quoted(claim)}"
        for claim, chapter in zip(failed["claim"], failed["chapter"], strict=True)
    ]
    return " ".join(map(sentence, [*said, *describe_seeds(table)]))


def quoted(claim: str) -> str:
    """A claim inside a sentence."""
    return f"“{claim.removesuffix('.')}”"


def describe_seeds(table: pd.DataFrame) -> list[str]:
    """Which of the claims that the studies judge as well have another verdict there."""
    both = [r for r in table.to_dict("records") if MISSING not in (r["here"], r["seeds"])]
    turned = [
        f"{quoted(r['claim'])} is {r['seeds']} instead of {r['here']}"
        for r in both
        if r["seeds"] != r["here"]
    ]
    judged = f"of {counted(len(both), 'claim')} that the studies judge over several seeds"
    said = listed(turned) if turned else "each has the same verdict there"
    return [f"{judged}, {said}"] if both else []
