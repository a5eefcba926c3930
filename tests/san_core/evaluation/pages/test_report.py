"""The report: its dict for programs, its page for people."""

import dataclasses
import json
import re

import numpy as np
import pytest

from san_core.data.records import ListedImage
from san_core.evaluation import ranking
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.pages import ranked_gallery, report, report_page, wording
from san_core.evaluation.pages.camera_pairs import CameraPair
from san_core.evaluation.pages.query_heights import HeightThird
from san_core.evaluation.protocol import SYSU_MM01
from san_core.evaluation.protocols.scoring import ProtocolScores
from san_core.evaluation.ranked_lists import RankedLists
from san_core.images import pixels


def image(pid: int, camid: int) -> bytes:
    plain = np.full((32, 16, 3), (40 * pid % 256, 30 * camid, 90), np.uint8)
    return pixels.encode_jpeg(plain, quality=80)


def listed(pid, camid, split) -> ListedImage:
    name = f"{split}/{pid:04d}_c{camid}.jpg"
    return ListedImage(name, pid, camid, split, lambda: image(pid, camid or 0))


def problem(*, cameras=True, people=30):
    query = [listed(pid, 0 if cameras else None, "query") for pid in range(1, people + 1)]
    gallery = [listed(pid, 1 if cameras else None, "gallery") for pid in range(-1, people)]
    return query, gallery


def ranked(query, gallery, *, seed=0, **kwargs):
    """A ranking that is the better, the smaller the person's number."""
    rng = np.random.default_rng(seed)
    rows = rng.random((len(query), len(gallery))).astype(np.float32)
    for i, record in enumerate(query):
        for j, other in enumerate(gallery):
            if other.pid == record.pid:
                rows[i, j] = (record.pid - 1) / len(query)
    tile = Tile(slice(0, len(query)), rows)
    who = {"query": ranking.labels_of(query), "gallery": ranking.labels_of(gallery)}
    return ranking.rank_distances([tile], **who, **kwargs)


def made(query, gallery, references=None, **kwargs):
    model = ranked(query, gallery)
    content = report.report_content(
        model, references, query=query, gallery=gallery, metric="euclidean", **kwargs
    )
    return model, content


def page_of(query, gallery, references=None, **kwargs) -> str:
    model, content = made(query, gallery, references, **kwargs)
    return whole_page(content, model, references, query=query, gallery=gallery)


def lists_of(model, query, gallery) -> RankedLists:
    """The lists of a ranking, in which a gallery image is as far as its place says."""
    who = {"query": ranking.labels_of(query), "gallery": ranking.labels_of(gallery)}
    return RankedLists(model, lambda _, places: places / 100, **who)


def whole_page(content, model, references=None, *, query, gallery, **kwargs) -> str:
    sections = report_page.report_sections(
        content,
        lists_of(model, query, gallery),
        references,
        query=query,
        gallery=gallery,
        read=lambda record: record.read(),
        **kwargs,
    )
    return report_page.report_page(content, {"": sections}, top_k=model.top.shape[1])


def test_the_figures_are_fractions_and_counts():
    query, gallery = problem()
    reference = ranked(query, gallery, seed=1)
    model, content = made(
        query, gallery, {"colour histogram": reference}, provenance={"model": "abc"}
    )
    assert {key: content[key] for key in ("rank1", "rank5", "rank10", "mAP", "mINP")} == (
        model.scores()
    )
    assert content["references"] == {"colour histogram": reference.scores()}
    assert content["cmc"] == model.cmc.tolist()
    counts = {key: value for key, value in content.items() if key.startswith("num_")}
    assert counts == {
        "num_query": 30,
        "num_gallery": 31,  # people 1 to 29, a distractor, a junk box
        "num_skipped": 1,  # person 30 is absent
        "num_identities": 30,
        "num_cameras": 2,
        "num_distractors": 1,
        "num_junk": 1,
        "num_camera_pairs": 0,
    }
    assert content["protocol"] == "market1501"
    assert (content["format"], content["version"]) == ("san-evaluation", 1)
    assert content["provenance"] == {"model": "abc"}


def test_the_figures_survive_json_and_come_out_the_same_twice():
    query, gallery = problem()
    (_, one), (_, two) = made(query, gallery), made(query, gallery)
    assert json.loads(json.dumps(one, allow_nan=False)) == one == two


def test_the_page_is_the_same_twice_and_fetches_nothing():
    query, gallery = problem()
    references = {"untrained encoder": ranked(query, gallery, seed=1)}
    one, two = (page_of(query, gallery, references) for _ in range(2))
    assert one == two
    assert not re.search(r"<script|<link|@import|url\(|https?:", one)


def test_the_page_shows_the_figures_of_the_report_in_per_cent():
    query, gallery = problem()
    references = {"untrained encoder": ranked(query, gallery, seed=1)}
    text = page_of(query, gallery, references)
    for name, each in {"this model": ranked(query, gallery), **references}.items():
        cells = re.search(rf'<th scope="row">{name}</th>(.*)</tr>', text)[1]
        shown = [float(cell) for cell in re.findall(r"<td>(.*?)</td>", cells)]
        keys = ("rank1", "mAP", "rank5", "rank10", "mINP")
        assert shown == pytest.approx([100 * each.scores()[key] for key in keys], abs=0.0501)
    assert 'alt="CMC curves. this model: ' in text


def test_every_shown_query_has_its_ranked_images_framed_by_their_verdict():
    query, gallery = problem()
    model, _ = made(query, gallery)
    text = page_of(query, gallery)
    chosen = [
        i
        for group in ranked_gallery.choose_queries(
            model, shown=ranked_gallery.QUERIES_PER_GROUP
        ).values()
        for i in group
    ]
    assert text.count('<figure class="query">') == len(chosen) == 12
    assert text.count('<figure class="right">') == model.right[chosen].sum()
    assert text.count('<figure class="wrong">') == (~model.right[chosen]).sum()
    said = re.findall(r'alt="rank (\d+), (right|wrong): (.*?)"', text)
    expected = []
    for i in chosen:
        found = [*enumerate(model.top[i], 1)]
        if model.first_rank[i] > 10:  # person p stands at place p + 1 of the gallery
            found.append((model.first_rank[i], query[i].pid + 1))
        for rank, g in found:
            verdict = "right" if gallery[g].pid == query[i].pid else "wrong"
            expected.append((str(rank), verdict, gallery[g].name))
    assert said == expected
    assert {int(rank) for rank, *_ in said} > {*range(1, 11)}
    place, far = int(model.top[chosen[0], 0]), int(max(model.first_rank[chosen]))
    assert f"</b> {place / 100:.3f}<span>person {place - 1}</span><span>cam 1</span>" in text
    assert f"<b>rank {far}</b>" in text


def test_facts_of_images_are_shown_beside_them():
    query, gallery = problem()
    facts = {"facts": {"weather": "rain", "hour": "<7>"}}
    told = [dataclasses.replace(record, fields={**record.fields, **facts}) for record in query]
    text = page_of(told, gallery)
    assert text.count('title="weather rain, hour &lt;7&gt;"') == 12
    assert " · weather rain, hour &lt;7&gt;</p>" in text
    assert "weather" not in page_of(query, gallery)


def test_a_ranking_shorter_than_the_top_shows_what_there_is():
    query, gallery = problem(people=4)
    text = page_of(query, gallery)
    # Three queries are judged; four gallery images are left to each, the junk box is not.
    assert text.count('<figure class="right">') + text.count('<figure class="wrong">') == 3 * 4


def test_queries_that_stand_for_all_and_the_worst_are_chosen_by_average_precision():
    query, gallery = problem(people=8)
    model = ranked(query, gallery)
    model.average_precision[:7] = [0.5, 0.1, 0.9, 0.3, 0.7, 0.3, 0.2]
    # From the best: 2, 4, 0, 3, 5, 6, 1. Query 7 shows a person who is absent.
    assert ranked_gallery.choose_queries(model, shown=2) == {
        "Representative queries": [4, 6],
        "Worst queries": [1, 3],
    }
    # No query is shown twice.
    assert ranked_gallery.choose_queries(model, shown=5) == {
        "Representative queries": [2, 0, 3, 5, 1],
        "Worst queries": [6, 4],
    }
    assert ranked_gallery.choose_queries(model, shown=9) == {
        "Representative queries": [2, 4, 0, 3, 5, 6, 1],
        "Worst queries": [],
    }


def test_equal_queries_are_chosen_in_query_order():
    query, gallery = problem(people=8)
    model = ranked(query, gallery)
    model.average_precision[:7] = 0.5
    assert ranked_gallery.choose_queries(model, shown=2) == {
        "Representative queries": [1, 5],
        "Worst queries": [0, 2],
    }


def test_the_protocol_is_put_into_words():
    text = page_of(*problem())
    for words in (
        "by squared Euclidean distance.",
        "own camera are left out, and so is junk.",
        "Distractors stay in the gallery and are always wrong.",
        "Of 30 queries 1 have no correct match left and are not scored.",
    ):
        assert words in text


def test_without_cameras_the_page_says_so():
    query, gallery = problem(cameras=False)
    _, content = made(query, gallery)
    assert (content["protocol"], content["num_cameras"]) == ("camera-free", 0)
    text = page_of(query, gallery)
    assert "Cameras are ignored: no gallery image is left out for its camera, only junk is." in (
        text
    )
    assert "cam 1" not in text


def test_provenance_is_shown_and_escaped():
    provenance = {"model": {"recipe": "<b>demo</b>"}, "dataset": "sha256:ab"}
    text = page_of(*problem(), provenance=provenance)
    assert "sha256:ab" in text
    assert "&lt;b&gt;demo" in text
    assert "Provenance" not in page_of(*problem())


def scored(query, gallery, protocol, *, reranked=False, **scores) -> ProtocolScores:
    ranking = ranked(query, gallery)
    return ProtocolScores(protocol, reranked, scores, np.full(50, 0.625), ranking)


SHOT = "single-gallery-shot:market1501"


def test_other_protocols_are_listed_with_their_scores():
    query, gallery = problem()
    scores = {"rank1": 0.25, "rank5": 0.5, "rank10": 0.75}
    others = [
        scored(query, gallery, "multi-query", **scores, mAP=0.125, mINP=0.0625),
        scored(query, gallery, "multi-query", reranked=True, **scores, mAP=0.4, mINP=0.1),
        scored(*(query, gallery, SHOT), **scores, mAP_of_draw=0.3, mAP_of_gallery=0.2),
    ]
    _, content = made(query, gallery, scored=others)
    counts = {"num_query": 30, "num_gallery": 31, "num_skipped": 1}
    assert content["protocols"][0] == {
        "protocol": "multi-query",
        "leaves_out_as": "market1501",
        "reranked": False,
        **scores,
        "mAP": 0.125,
        "mINP": 0.0625,
        **counts,
    }
    assert content["protocols"][2]["mAP_of_draw"] == 0.3
    text = page_of(query, gallery, scored=others)
    rule = "leaves out the same gallery images as market1501"
    for row in (
        ("multi-query", rule, "25.0", "12.5", "50.0", "75.0", "6.2", "29"),
        ("multi-query, re-ranked", rule, "25.0", "40.0", "50.0", "75.0", "10.0", "29"),
        (SHOT, "mAP of the draw", "25.0", "30.0", "50.0", "75.0", "–", "29"),
        (SHOT, "mAP of the gallery", "25.0", "20.0", "50.0", "75.0", "–", "29"),
    ):
        head, note, *cells = row
        cells = "".join(f"<td>{cell}</td>" for cell in cells)
        assert f'<th scope="row">{head}<small>{note}</small></th>{cells}' in text
    for words in ("the mean feature of a person", "over all draws", "k-reciprocal neighbours"):
        assert words in text
    assert "Other protocols" not in page_of(query, gallery)


def test_the_figures_are_those_of_the_first_protocol():
    query, gallery = problem()
    scores = {"rank1": 0.25, "rank5": 0.5, "rank10": 0.75}
    shot = scored(*(query, gallery, SHOT), **scores, mAP_of_draw=0.3, mAP_of_gallery=0.2)
    untrained = scored(*(query, gallery, SHOT), **scores, mAP_of_draw=0.1, mAP_of_gallery=0.2)
    headline = {"this model": shot, "untrained encoder": untrained}
    references = {"untrained encoder": ranked(query, gallery, seed=1)}
    model, content = made(query, gallery, references, headline=headline)
    assert (content["protocol"], content["leaves_out_as"]) == (SHOT, "market1501")
    assert (content["rank1"], content["mAP"], content["mAP_of_gallery"]) == (0.25, 0.3, 0.2)
    assert "mINP" not in content
    assert content["cmc"] == [0.625] * 50
    assert content["references"]["untrained encoder"]["mAP"] == 0.1
    who = {"query": query, "gallery": gallery}
    text = whole_page(content, model, references, **who, headline=headline)
    assert f"The protocol is {SHOT}. A single gallery shot is the expectation" in text
    cells = "".join(f"<td>{cell}</td>" for cell in ("25.0", "30.0", "50.0", "75.0", "–"))
    assert re.search(rf'<th scope="row">this model</th>{cells}', re.sub(' class="[^"]*"', "", text))
    assert "CMC curves. this model: 62.5% at rank 1" in text


def test_what_a_sampled_shot_draws_is_put_into_words():
    query, gallery = problem()
    shot = scored(query, gallery, "sampled-gallery-shot", mAP_of_draw=0.5, mAP_of_gallery=0.5)
    text = page_of(query, gallery, scored=[shot])
    assert "the mean over 10 draws from a fixed seed, of one image per person." in text
    ranking = dataclasses.replace(shot.ranking, protocol="sysu-mm01")
    by_camera = shot._replace(protocol="sampled-gallery-shot:sysu-mm01", ranking=ranking)
    text = page_of(query, gallery, scored=[by_camera])
    assert "for sysu-mm01 of one image per person and camera, and a person ranks by" in text


def test_pairs_of_cameras_make_a_table():
    query, gallery = problem()
    pairs = [CameraPair(0, 1, 29, 0.5, 0.25), CameraPair(2, 0, 4, 1.0, 0.75)]
    _, content = made(query, gallery, pairs=pairs)
    assert content["camera_pairs"][0] == {
        "query_camera": 0,
        "gallery_camera": 1,
        "num_query": 29,
        "rank1": 0.5,
        "mAP": 0.25,
    }
    text = page_of(query, gallery, pairs=pairs)
    assert '<th scope="row">cam 0</th><td>–</td><td>25.0<small>50.0</small></td>' in text
    assert '<th scope="row">cam 2</th><td>75.0<small>100.0</small></td><td>–</td>' in text
    assert "Pairs of cameras" not in page_of(query, gallery)


def test_of_many_pairs_of_cameras_the_worst_hundred_are_listed():
    query, gallery = problem()
    pairs = [CameraPair(i, j, 3, 0.5, (40 * i + j) / 1600) for i in range(40) for j in range(40)]
    _, content = made(query, gallery, pairs=pairs[::-1])
    kept = [(p["query_camera"], p["gallery_camera"]) for p in content["camera_pairs"]]
    assert kept == [divmod(number, 40) for number in range(100)]
    assert content["num_camera_pairs"] == 1600
    text = page_of(query, gallery, pairs=pairs)
    assert "The 100 worst of 1,600 pairs, by mAP" in text
    assert text.count("cam 2 in cam ") == 20
    assert "cam 3 in" not in text


def test_a_roc_curve_is_drawn_where_there_is_one():
    query, gallery = problem()
    model = ranked(query, gallery, with_roc=True)
    who = {"query": query, "gallery": gallery}
    content = report.report_content(model, **who, metric="cosine")
    rates = content["roc"]["tpr_at_fpr"]
    assert rates == {f"{fpr:g}": model.roc.tpr_at(fpr) for fpr in (1e-4, 1e-3, 1e-2, 1e-1)}
    text = whole_page(content, model, **who)
    assert (
        f"ROC curves. At a false positive rate of 0.001, this model: TPR {rates['0.001']:.1%}"
        in (text)
    )
    assert f"<td>{100 * rates['0.1']:.1f}</td></tr>" in text
    assert "ROC" not in page_of(query, gallery)


def test_scores_by_the_height_of_queries_are_a_table_of_their_own():
    query, gallery = problem()
    heights = [HeightThird(40, 63, 10, 0.25, 0.125), HeightThird(64, 300, 20, 0.75, 0.5)]
    _, content = made(query, gallery, heights=heights)
    assert content["query_heights"][0] == {
        "lowest": 40,
        "highest": 63,
        "num_query": 10,
        "rank1": 0.25,
        "mAP": 0.125,
    }
    text = page_of(query, gallery, heights=heights)
    assert "Heights of queries" in text
    assert "<td>25.0</td><td>12.5</td><td>10</td>" in text
    assert "Heights of queries" not in page_of(query, gallery)


def test_that_the_model_was_trained_on_whom_it_is_tested_on_stands_beside_the_headline():
    query, gallery = problem()
    seen = {"images": 56, "of_images": 80, "people": 14, "of_people": 20}
    text = page_of(query, gallery, provenance={"seen_in_training": seen})
    told = "trained on 14 of the 20 identities (by their names) and 56 of the 80 images"
    assert f"this model<small>{told}</small>" in text
    assert "trained on" not in page_of(query, gallery)


def test_sysu_leaves_out_the_room():
    query, gallery = problem()
    query = [dataclasses.replace(record, camid=2) for record in query]
    gallery = [dataclasses.replace(record, camid=0) for record in gallery]
    model = ranked(query, gallery, protocol=SYSU_MM01)
    content = report.report_content(model, query=query, gallery=gallery, metric="cosine")
    assert content["protocol"] == "sysu-mm01"
    assert "all images by the other camera of the query's room" in wording.protocol_in_words(
        content
    )


def test_a_ranking_of_other_records_is_refused():
    query, gallery = problem()
    with pytest.raises(ValueError, match="this model covers 30 queries and 31 gallery images, "):
        report.report_content(
            ranked(query, gallery), query=query[1:], gallery=gallery, metric="cosine"
        )
    other = ranked(*problem(people=8))
    with pytest.raises(ValueError, match="the ranking of histogram covers 8 queries"):
        made(query, gallery, {"histogram": other})


def test_a_reference_may_not_take_the_name_of_the_model():
    query, gallery = problem()
    with pytest.raises(ValueError, match="a reference may not be called 'this model'"):
        made(query, gallery, {"this model": ranked(query, gallery)})


def test_an_unknown_metric_is_refused():
    query, gallery = problem()
    with pytest.raises(ValueError, match="no metric 'l1'; there are euclidean, cosine"):
        report.report_content(ranked(query, gallery), query=query, gallery=gallery, metric="l1")


def test_a_damaged_image_is_named():
    query, gallery = problem()
    gallery[5] = dataclasses.replace(gallery[5], name="gallery/torn.jpg", read=lambda: b"bad")
    with pytest.raises(ValueError, match=r"gallery/torn\.jpg: 3 bytes that are not one of JPEG"):
        page_of(query, gallery)


def test_several_data_sets_share_one_table_and_each_has_its_own_sections():
    query, gallery = problem()
    contents, sections = {}, {}
    for seed, name in enumerate(("market1501", "msmt17")):
        model = ranked(query, gallery, seed=seed)
        content = report.report_content(model, query=query, gallery=gallery, metric="cosine")
        contents[name] = {**content, "rank1": (seed + 1) / 8, "mAP": (seed + 1) / 16}
        sections[name] = report_page.report_sections(
            contents[name],
            lists_of(model, query, gallery),
            query=query,
            gallery=gallery,
            read=lambda record: record.read(),
        )
    joined = report.join_contents(contents)
    assert (joined["target"], joined["rank1"]) == ("market1501", 0.125)
    assert joined["further_targets"] == {"msmt17": contents["msmt17"]}
    text = report_page.report_page(joined, sections)
    headings = re.findall("<h2[^>]*>(.*?)</h2>", text)
    assert headings[:3] == ["Data sets", "What was scored", "Scores"]
    assert "msmt17: Scores" in headings
    rows = re.findall(r'<th scope="row">(\w+)<small>market1501</small></th>(.*?)</tr>', text, re.S)
    shown = [(name, re.findall(r"<td>(.*?)</td>", cells)[:2]) for name, cells in rows]
    assert shown == [("market1501", ["12.5", "6.2"]), ("msmt17", ["25.0", "12.5"])]


def test_a_single_data_set_needs_no_table_of_data_sets():
    query, gallery = problem()
    _, content = made(query, gallery)
    assert report.join_contents({"": content}) == content
    assert "Data sets" not in page_of(query, gallery)


def test_a_page_begins_with_what_was_scored_and_what_figures_mean():
    query, gallery = problem()
    provenance = {"recipe": "demo", "overrides": "epochs=3", "seed": 7, "mirrored": True}
    seen = {"images": 0, "of_images": 61, "people": 0, "of_people": 30}
    told = {**provenance, "seen_in_training": seen}
    text = page_of(query, gallery, provenance=told, data_set="market1501")
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td></tr>', text))
    assert rows["Data set"] == "market1501"
    assert rows["Images"] == "30 queries of 30 people against 31 gallery images, by 2 cameras"
    assert (rows["Recipe"], rows["Seed"]) == ("demo with epochs=3", "7")
    assert rows["Seen in training"] == "none of these identities"
    assert rows["Flip test"] == "features are averaged with those of the mirrored images"
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings[:3] == ["What was scored", "Scores", "Ranked lists"]
    assert "mINP: mean inverse negative penalty" in text


def test_people_are_called_as_the_data_set_calls_them():
    query, gallery = problem(people=4)
    named = [
        dataclasses.replace(record, fields={"person": f"Ms <{record.pid}>", "camera": "north"})
        for record in query
    ]
    text = page_of(named, gallery)
    assert "<b>Ms &lt;1&gt;</b>" in text
    assert "cam north" in text
    assert "<span>distractor</span>" in text
    assert "numbered from 0" not in text
