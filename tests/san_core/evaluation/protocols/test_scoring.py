"""Several protocols on one set of features."""

import dataclasses
import os

import numpy as np
import pytest

from san_core.evaluation import ranking
from san_core.evaluation.kernels import distance
from san_core.evaluation.kernels.rows import select_rows
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import CAMERA_FREE, SYSU_MM01
from san_core.evaluation.protocols import scoring, single_shot
from san_core.evaluation.protocols.multi_query import pool_queries
from san_core.evaluation.protocols.scoring import EmbeddedImages, Scorer
from san_core.evaluation.rerank import rerank_features


@pytest.fixture(scope="module")
def images() -> EmbeddedImages:
    """Queries, two more images of each in its camera, and a gallery with junk."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(32, 12))
    query = Labels(np.arange(1, 31), np.arange(30) % 4)
    pooled = Labels(np.tile(query.pids, 3), np.tile(query.camids, 3))
    gallery = Labels(rng.integers(-1, 31, 400), rng.integers(0, 4, 400))
    of = [
        (centres[labels.pids] + 0.8 * rng.normal(size=(len(labels.pids), 12))).astype(np.float32)
        for labels in (pooled, gallery)
    ]
    return EmbeddedImages(
        select_rows(of[0][:30]),
        select_rows(of[1]),
        select_rows(of[0]),
        query,
        gallery,
        pooled,
        metric="cosine",
    )


@pytest.fixture(scope="module")
def infrared(images) -> EmbeddedImages:
    """The same by the cameras of SYSU-MM01."""

    def by(labels: Labels, cameras: tuple[int, ...]) -> Labels:
        return Labels(labels.pids, np.array(cameras)[labels.camids % len(cameras)])

    return dataclasses.replace(
        images,
        query=by(images.query, SYSU_MM01.asking),
        gallery=by(images.gallery, SYSU_MM01.searched),
        pooled=by(images.pooled, SYSU_MM01.asking),
    )


def plain(images: EmbeddedImages) -> dict:
    return {"query": images.query, "gallery": images.gallery}


@pytest.mark.parametrize("protocol", [CAMERA_FREE, SYSU_MM01], ids=lambda p: p.name)
def test_a_protocol_is_ranked_as_it_says(infrared, protocol):
    images = infrared
    expected = ranking.rank(
        images.query_features,
        images.gallery_features,
        **plain(images),
        metric="cosine",
        protocol=protocol,
    )
    found = Scorer(images).score(protocol.name, top_k=10, with_roc=True)
    assert found.scores == expected.scores()
    assert found.ranking.roc is not None
    np.testing.assert_array_equal(found.ranking.top, expected.top)


def test_multi_query_asks_with_the_mean(images):
    features, query = pool_queries(
        images.pooled_features, images.pooled, query=images.query, metric="cosine"
    )
    expected = ranking.rank(
        features, images.gallery_features, query=query, gallery=images.gallery, metric="cosine"
    )
    found = Scorer(images).score("multi-query")
    assert found.scores == expected.scores()
    assert found.scores["mAP"] > Scorer(images).score("market1501").scores["mAP"]


def test_single_gallery_shot_is_the_exact_one(images):
    tiles = distance.distance_tiles(images.query_features, images.gallery_features, metric="cosine")
    expected = single_shot.expected_single_shot(tiles, **plain(images))
    assert Scorer(images).score("single-gallery-shot").scores == expected.scores()


def test_a_sampled_gallery_shot_is_drawn_from_its_seed(images):
    tiles = distance.distance_tiles(images.query_features, images.gallery_features, metric="cosine")
    expected = single_shot.sampled_single_shot(tiles, **plain(images), draws=10, seed=0)
    assert Scorer(images).score("sampled-gallery-shot").scores == expected.scores()


@pytest.mark.parametrize(
    ("word", "follow"),
    [
        ("multi-query", "sysu-mm01"),
        ("single-gallery-shot", "camera-free"),
        ("sampled-gallery-shot", "sysu-mm01"),
    ],
)
def test_a_protocol_may_leave_out_what_another_does(images, infrared, word, follow):
    scorer = Scorer(infrared if follow == "sysu-mm01" else images)
    usual, other = scorer.score(word), scorer.score(f"{word}:{follow}")
    assert (usual.protocol, usual.ranking.protocol) == (word, "market1501")
    assert (other.protocol, other.ranking.protocol) == (f"{word}:{follow}", follow)
    assert other.scores != usual.scores


def test_all_pairs_are_passed_over_once_for_all_reranked_protocols(monkeypatch, images):
    honest, calls = scoring.encode_neighbours, []

    def counted(*args, **kwargs):
        calls.append(args)
        return honest(*args, **kwargs)

    monkeypatch.setattr(scoring, "encode_neighbours", counted)
    names = ["market1501", "camera-free", "single-gallery-shot", "single-gallery-shot:camera-free"]
    scorer = Scorer(images)
    shared = [scorer.score(name, reranked=True).scores for name in names]
    assert len(calls) == 1
    assert shared == [Scorer(images).score(name, reranked=True).scores for name in names]


@pytest.mark.parametrize("name", ["market1501", "camera-free", "multi-query"])
def test_reranked_scores_leave_junk_out_before(images, name):
    found = Scorer(images).score(name, reranked=True)
    left = np.flatnonzero(images.gallery.pids != -1)
    assert found.reranked
    assert found.ranking.num_gallery == len(left) < 400
    if name == "market1501":
        gallery = select_rows(images.gallery_features.matrix, left)
        tiles = rerank_features(images.query_features, gallery, metric="cosine")
        expected = ranking.rank_distances(
            tiles, query=images.query, gallery=images.gallery.take(left)
        )
        assert found.scores == expected.scores()


def test_without_cameras_a_single_shot_leaves_nothing_out(images):
    free = dataclasses.replace(
        images,
        query=Labels(images.query.pids, None),
        gallery=Labels(images.gallery.pids, None),
    )
    assert Scorer(free).score("single-gallery-shot").ranking.protocol == "camera-free"


KNOWN = Labels(np.array([1]), np.array([0]))
UNKNOWN = Labels(np.array([1]), None)


@pytest.mark.parametrize(
    ("text", "labels", "names"),
    [
        ("auto", KNOWN, ["market1501"]),
        ("auto", UNKNOWN, ["camera-free"]),
        ("camera-free, multi-query", KNOWN, ["camera-free", "multi-query"]),
        ("single-gallery-shot auto", UNKNOWN, ["single-gallery-shot", "camera-free"]),
    ],
)
def test_protocols_are_named_in_their_order(text, labels, names):
    assert scoring.parse_protocols(text, labels) == names


def test_auto_is_the_protocol_of_the_data_set():
    own = "single-gallery-shot"
    assert scoring.parse_protocols("auto,camera-free", KNOWN, own=own) == [own, "camera-free"]
    assert scoring.parse_protocols("market1501", KNOWN, own=own) == ["market1501"]
    with pytest.raises(ValueError, match="no protocol 'lost'"):
        scoring.parse_protocols("auto", KNOWN, own="lost")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("market", "no protocol 'market'; there are auto, market1501, camera-free, sysu-mm01, mul"),
        (" ", "no protocol is named; there are auto"),
        ("auto,market1501", "protocol market1501 is given twice"),
        (
            "market1501:sysu-mm01",
            "one of multi-query, .* may be followed by a colon",
        ),
        ("multi-query:msmt17", "no protocol 'multi-query:msmt17'"),
        (
            "single-gallery-shot:sysu-mm01",
            "one image of each person and camera is drawn; the exact",
        ),
    ],
)
def test_protocols_that_are_none_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        scoring.parse_protocols(text, KNOWN)


def test_the_gallery_that_is_shown_is_ranked_by_the_rule_of_the_protocol():
    shown = scoring.ranked_gallery_protocol
    assert shown("sysu-mm01", KNOWN) == "sysu-mm01"
    assert shown("single-gallery-shot:camera-free", KNOWN) == "camera-free"
    assert shown("sampled-gallery-shot:sysu-mm01", KNOWN) == "sysu-mm01"
    assert shown("multi-query", KNOWN) == "market1501"
    assert shown("multi-query", UNKNOWN) == "camera-free"


@pytest.mark.parametrize("reranked", [False, True])
@pytest.mark.parametrize("name", ["market1501", "single-gallery-shot"])
def test_as_many_threads_are_used_as_are_given(monkeypatch, images, name, reranked):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: pytest.fail("asked how many there are"))
    one, two = (
        Scorer(images, threads=threads).score(name, reranked=reranked) for threads in (1, 2)
    )
    assert one.scores == two.scores
