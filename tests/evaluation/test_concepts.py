"""Class names, text encoders and seen concepts, against facts and slow obvious code."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avnb.evaluation import class_names, concepts, results
from avnb.evaluation.class_names import ClassList, class_list

WORDS = ["hair", "drying", "blow", "dry", "yoga", "drums", "playing", "drumming", "archery"]


class CountedWords:
    """A text encoder that counts words."""

    def encode(self, texts, **options):
        return np.array([[text.split().count(word) for word in WORDS] for text in texts], float)


@pytest.fixture
def counted(monkeypatch):
    """Text encoders are read from nowhere, and count words."""
    monkeypatch.setattr(concepts, "load", lambda name: CountedWords())


def names(key, *listed):
    return ClassList(key, key, listed)


@pytest.mark.parametrize(
    "key, count, some",
    [
        ("vggsound", 309, {308: "zebra braying"}), ("audioset", 527, {0: "Speech"}),
        ("kinetics400", 400, {399: "zumba"}), ("ucf101", 101, {36: "HandstandPushups"}),
        ("hmdb51", 51, {14: "flic_flac"}),
    ],
)  # fmt: skip
def test_the_lists_are_whole_and_in_label_order(key, count, some):
    found = class_list(key)
    assert len(found.names) == len(set(found.plain)) == count
    assert {i: found.names[i] for i in some} == some
    assert (list(found.names) == sorted(found.names)) == (key not in ("audioset", "ucf101"))
    assert found.is_official and not names(key, *found.names, "another").is_official


@pytest.mark.parametrize(
    "name, plain",
    [
        ("ApplyEyeMakeup", "apply eye makeup"), ("TVShow", "tvshow"), ("flic_flac", "flic flac"),
        ("dog bow-wow", "dog bowwow"), ("police car (siren)", "police car siren"),
        ("  two   spaces\t", "two spaces"), ("it’s – “odd” $1", "its odd 1"),
    ],
)  # fmt: skip
def test_odd_names_are_normalised_as_in_the_released_code(name, plain):
    assert class_names.normalised(name) == plain
    assert class_names.normalised(plain) == plain


def test_a_list_from_a_file(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffPlayDrums\r\n\r\nbrush_hair\r\n".encode())
    found = class_names.from_file(file)
    assert (found.key, found.title, found.names) == ("mine", "mine", ("PlayDrums", "brush_hair"))
    assert found.plain == ["play drums", "brush hair"]
    file.write_text("\n  \n")
    with pytest.raises(ValueError, match="holds no class name"):
        class_names.from_file(file)


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
    for _ in range(20):
        # rounded, so that ties and values at the threshold occur
        primary, secondary = rng.uniform(-1, 1, (2, 9, 7)).round(1)
        exclude = set(rng.choice(7, 2, replace=False).tolist())
        expected = slow_seen(primary, secondary, 0.8, top, exclude)
        tensors = torch.from_numpy(primary), torch.from_numpy(secondary)
        for pair in ((primary, secondary), tensors):
            assert concepts.seen(*pair, threshold=0.8, top=top, exclude=exclude) == expected


def test_an_example_small_enough_for_the_eye():
    primary = np.array([[0.9, 0.5, 0.4, 0.1], [0.3, 0.4, 0.2, 0.1]])
    secondary = np.array([[0.1, 0.9, 0.8, 0.7], [0.9, 0.8, 0.7, 0.1]])
    assert concepts.seen(primary, secondary, threshold=0.47) == ([[1, 2], []], {1, 2})
    assert concepts.seen(primary, secondary, threshold=0.39, top=2) == ([[1], [1, 0]], {0, 1})
    # the threshold itself does not count
    assert concepts.seen(primary, secondary, threshold=0.4, top=2) == ([[1], []], {1})


def test_what_does_not_fit_is_an_error():
    zeros, known = np.zeros((2, 3)), np.array([[0.1, np.nan, 0.2]] * 2)
    with pytest.raises(ValueError, match=r"\(2, 3\) and secondary \(2, 4\)"):
        concepts.seen(zeros, np.zeros((2, 4)), threshold=0.5)
    for secondary, top, most in ((zeros, 0, 3), (zeros, 4, 3), (known, 3, 2)):
        with pytest.raises(ValueError, match=rf"top must lie in \[1, {most}\]"):
            concepts.seen(zeros, secondary, threshold=0.5, top=top)
    assert concepts.seen(zeros + 1, known, threshold=0.5, top=2)[0] == [[0], [0]]


def test_similarity_is_the_cosine_of_the_encoders_vectors():
    cosines = concepts.similarity(["hair drying", "yoga"], ["blow dry hair"], CountedWords())
    assert cosines == pytest.approx(np.array([[6**-0.5], [0]]))


def test_a_published_ranking_belongs_to_the_names_that_it_was_made_of():
    vggsound, ucf101 = class_list("vggsound"), class_list("ucf101")
    whole = concepts.published_cosines(vggsound, ucf101)
    assert whole.shape == (309, 101) and (np.isfinite(whole).sum(axis=1) == 3).all()
    best = np.nanargmax(whole[vggsound.plain.index("skiing")])
    assert ucf101.plain[best] == "skiing" and np.nanmax(whole) == pytest.approx(1, abs=1e-4)
    tied = whole[vggsound.plain.index("bouncing on trampoline")]
    order = [ucf101.plain[i] for i in np.argsort(-tied)[:3]]
    assert order == ["trampoline jumping", "skate boarding", "juggling balls"]
    part = concepts.published_cosines(names("vggsound", *vggsound.names[5:9]), ucf101)
    assert np.array_equal(part, whole[5:9], equal_nan=True)
    others = names("vggsound", *vggsound.names, "another")
    assert concepts.published_cosines(others, ucf101) is None
    assert concepts.published_cosines(vggsound, names("ucf101", *ucf101.names[1:])) is None
    assert concepts.published_cosines(vggsound, names("ucf101", *ucf101.names, "more")) is None
    assert concepts.published_cosines(names("mine", "yoga"), ucf101) is None


def test_names_are_compared_by_both_encoders(counted):
    lists = names("a", "hair drying", "playing drums"), names("b", "archery", "drums", "blow hair")
    one = concepts.match(*lists, "x", "y", threshold=0.6, top=1)
    assert one.seen() == ([[], [1]], {1}) and one.title == "a → b"
    assert one.primary[:, 1:] == pytest.approx(np.array([[0, 0.5], [2**-0.5, 0]]))
    assert replace(one, threshold=0.4).seen()[1] == {1, 2}
    assert one.method == "x + y" and replace(one, outliers=("drums",)).seen()[1] == set()
    assert concepts.match(*lists).threshold == 0.47 and concepts.match(*lists).top == 3


def test_the_pairs_of_the_thesis_have_its_thresholds_outliers_and_ranking(counted):
    queries = [class_list(key) for key in ("vggsound", "audioset", "kinetics400")]
    made = [concepts.match(q, class_list(t)) for t in ("ucf101", "hmdb51") for q in queries]
    assert [(m.threshold, len(m.outliers)) for m in made] == [
        (0.47, 3), (0.47, 3), (0.47, 0), (0.46, 8), (0.46, 8), (0.46, 2),
    ]  # fmt: skip
    assert all("phrase-bert, as published" in m.method for m in made)
    live = concepts.match(queries[0], class_list("ucf101"), secondary="mine")
    assert live.method == "all-MiniLM-L6-v2 + mine" and np.isfinite(live.secondary).all()


@pytest.mark.slow
def test_the_published_table_comes_out_without_the_second_model():
    table = results.select(results.published(), task="concepts", where="Table 4.5")
    assert sorted(table["value"]) == [22, 28, 41, 50, 54, 86]
    for row in table.itertuples():
        found = concepts.match(class_list(row.level), class_list(row.dataset))
        assert len(found.seen()[1]) == row.value
        # some outliers would match otherwise, and nothing else changes
        removed = {found.targets.plain.index(name) for name in found.outliers}
        every = replace(found, outliers=()).seen()[1]
        assert every - removed == found.seen()[1] and bool(every & removed) == bool(removed)


AUTHORS = [  # as the released notebook prints them
    ("dog bow-wow", "ucf101", {"archery": 0.4725, "walking with dog": 0.4315}),
    ("massaging person's head", "ucf101", {"head massage": 0.7680}),
    ("tai chi", "ucf101", {"tai chi": 1.0, "sumo wrestling": 0.4619}),
    ("waxing eyebrows", "hmdb51", {"brush hair": 0.4687, "smile": 0.2731}),
]


@pytest.mark.slow
@pytest.mark.parametrize("query, key, best", AUTHORS)
def test_the_packaged_model_gives_the_authors_cosines(query, key, best):
    plain = class_list(key).plain
    cosines = concepts.similarity([class_names.normalised(query)], plain, "all-MiniLM-L6-v2")[0]
    order = np.argsort(-cosines)[: len(best)]
    assert {plain[i]: cosines[i] for i in order} == pytest.approx(best, abs=1e-4)
