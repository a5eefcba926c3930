"""`python -m tools.readme`: bring the generated tables of the README files up to date.

A generated part stands between `<!-- NAME -->` and `<!-- /NAME -->`; a test compares it with what
the declarations of the steps and the measured figures in tests/results give.
"""

import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from components.__main__ import STEPS
from components.command.code import ROOT
from components.command.step import Parameter, command_line_word, read_docstring, step_parameters
from components.process.gpu import GPU_STEPS
from components.storage.outputs import write_file
from tools.costs import costs_table
from tools.generator.figures import figures_table
from tools.scale import scale_table as table_of_scale

_UNMEASURED = "not measured yet"
README_FILES = (
    "README.md",
    "components/README.md",
    "components/DATA.md",
    "san_core/README.md",
    "tests/README.md",
    "docker/README.md",
    "san_core/shipped/MODEL_CARD.md",
)


def step_table() -> str:
    """The steps with their artifacts: Markdown, a row a step."""
    rows = ["| step | what it does | in | out | image |", "|---|---|---|---|---|"]
    for name, step in STEPS.items():
        declared = step_parameters(step)
        inputs = ", ".join(_bracket_optional(p) for p in declared if p.is_input) or "–"
        outputs = ", ".join(_bracket_optional(p) for p in declared if p.is_output)
        image = "gpu" if name in GPU_STEPS else "cpu"
        summary = read_docstring(step).summary
        rows.append(f"| `{name}` | {summary} | {inputs} | {outputs} | {image} |")
    return "\n".join([*rows, "", "Those in [ ] may be left out."])


def flag_reference() -> str:
    """Every flag of every step: Markdown, a section a step."""
    sections = []
    for name, step in STEPS.items():
        rows = [f"### {name}", "", read_docstring(step).text, ""]
        rows += ["| flag | type | default | meaning |", "|---|---|---|---|"]
        rows += [
            f"| `{p.flag}` | {_type_text(p)} | {_default_text(p)} | "
            f"{p.help.replace('|', chr(92) + '|')} |"
            for p in step_parameters(step)
        ]
        sections.append("\n".join(rows))
    return "\n\n".join(sections)


def demo_table() -> str:
    """What the demo was measured to reach and to take: Markdown, from tests/results."""
    value, where = _read_figures("pipeline")
    seen = {
        "rank-1": f"{value['pipeline.demo_rank1']:.1%}",
        "mAP": f"{value['pipeline.demo_map']:.1%}",
        "mAP of a colour histogram": f"{value['pipeline.demo_map_colour_histogram']:.1%}",
        "mAP of the untrained encoder": f"{value['pipeline.demo_map_untrained_encoder']:.1%}",
        "SAN-PG on held-out people": (
            f"{value['pipeline.demo_psnr_gain_over_mean_db']:.1f} dB PSNR above the mean texture"
        ),
        "first run, installation aside": f"{value['pipeline.demo_seconds']:.0f} s",
        "second run, nothing changed": f"{value['pipeline.demo_skip_seconds']:.1f} s",
    }
    rows = [f"| {name} | {shown} |" for name, shown in seen.items()]
    return "\n".join([f"| demo ({where}) | |", "|---|---|", *rows])


def texture_table() -> str:
    """How fast textures are kept and fetched, and what that needs: Markdown, from tests/results."""
    value, where = _read_figures("textures")
    seen = {
        "write shards of 1,000": f"{value['textures.shard_images_per_second']:,.0f} images/s",
        "write one object per image, 16 threads": (
            f"{value['textures.object_images_per_second']:,.0f} images/s"
        ),
        "fetch to the cache, every byte checked": (
            f"{value['textures.stage_images_per_second']:,.0f} images/s"
        ),
        "check what is in the cache": (
            f"{value['textures.restage_images_per_second']:,.0f} images/s"
        ),
        "memory of generate_textures for 1,000 images": (
            f"{value['textures.memory_1000_mib']:.0f} MiB"
        ),
        "memory of generate_textures for 10,000 images": (
            f"{value['textures.memory_10000_mib']:.0f} MiB"
        ),
    }
    rows = [f"| {name} | {shown} |" for name, shown in seen.items()]
    what = "10,000 textures of 256x256, SeaweedFS on the same machine"
    return "\n".join([f"| {what} ({where}) | |", "|---|---|", *rows])


def dataset_table() -> str:
    """What data sets can be read, and how, then the options that several have: Markdown."""
    from san_core.data.readers.sources import DATASET_FORMATS

    counts = Counter(name for one in DATASET_FORMATS.values() for name in one.options)
    shared: dict[str, str] = {}
    rows = ["| `--dataset` | what it is | options |", "|---|---|---|"]
    rows.append("| `synthetic` | people who do not exist, rendered; needs no source | – |")
    for key, source in DATASET_FORMATS.items():
        own = [_option_text(*one) for one in source.options.items() if counts[one[0]] < 3]
        shared |= {name: text for name, text in source.options.items() if counts[name] >= 3}
        named = ", ".join(f"`{name}`" for name in source.options if counts[name] >= 3)
        options = [*own, *([f"{named}: see below"] if named else [])]
        rows.append(f"| `{key}` | {source.description} | {'<br>'.join(options) or '–'} |")
    rows += ["", "| option of several | meaning |", "|---|---|"]
    rows += [f"| {' | '.join(_option_text(*one).split(': ', 1))} |" for one in shared.items()]
    return "\n".join(rows)


def _option_text(name: str, text: str) -> str:
    return _code_until_colon(text) if text.startswith(f"{name}=") else f"`{name}`: {text}"


def _code_until_colon(text: str) -> str:
    words, _, rest = text.partition(":")
    return f"`{words}`:{rest}"


def preparation_table() -> str:
    """What preparing a data set was measured to take: Markdown, from tests/results."""
    value, where = _read_figures("datasets")
    seen = {
        "CPU time": f"{value['datasets.prepare_cpu_seconds']:.2f} s",
        "CPU time over that of copying the files (`shutil.copytree`)": (
            f"{value['datasets.prepare_vs_copy']:.1f}"
        ),
        "memory for 130,000 images": f"{value['datasets.memory_130000_mib']:.0f} MiB",
    }
    rows = [f"| {name} | {shown} |" for name, shown in seen.items()]
    what = "prepare 10,000 JPEGs of 64x128, every image decoded"
    return "\n".join([f"| {what} ({where}) | |", "|---|---|", *rows])


def evidence_table() -> str:
    """Whether texture supervision helps: the table that `make reproduce` wrote."""
    return (ROOT / "tests" / "results" / "evidence.md").read_text("utf-8").rstrip()


def evidence_summary() -> str:
    """What that comes to in five lines."""
    return (ROOT / "tests" / "results" / "evidence_summary.md").read_text("utf-8").rstrip()


def choices_table() -> str:
    """What variants of `synthetic` were tried: the table that tests.benchmarks wrote."""
    return (ROOT / "tests" / "results" / "evidence_choices.md").read_text("utf-8").rstrip()


def _read_figures(group: str) -> tuple[dict[str, float], str]:
    """The figures of a group by name, with the machine and date of measurement."""
    measured = json.loads((ROOT / "tests" / "results" / f"{group}.json").read_bytes())
    value = {name: figure["value"] for name, figure in measured["figures"].items()}
    machine = measured["machine"]
    return value, f"{machine['cores']} cores, {machine['cpu']}, {measured['date']}"


def _table_with_bars(group: str, what: str, figures: Sequence[tuple[str, str, str, str]]) -> str:
    """A table of a group's figures: words, name, format and bar of each; missed ones are marked."""
    value, where = _read_figures(group)
    rows = [f"| {what} ({where}) | measured | bar |", "|---|---|---|"]
    above = 0.0
    for words, name, form, bar in figures:
        mark = " (missed)" if _is_missed(value[name], bar, above) else ""
        rows.append(f"| {words} | {value[name]:{form}} | {bar}{mark} |")
        above = value[name]
    return "\n".join(rows)


_BAR = re.compile(r"([≤≥<]?) ?(?:([\d.]+)(%?)|twice that)")
_COMPARISONS = {"≤": operator.le, "≥": operator.ge, "<": operator.lt, "": operator.eq}


def _is_missed(value: float, bar: str, above: float) -> bool:
    """Whether a figure misses its bar; "twice that" is of the figure `above` it, – is no bar."""
    if bar == "–":
        return False
    read = _BAR.fullmatch(bar)
    assert read is not None, f"{bar!r} is no bar"
    sign, number, percent = read.groups()
    limit = float(number) / (100 if percent else 1) if number else 2 * above
    return not _COMPARISONS[sign](value, limit)


def ranking_table() -> str:
    """What scoring was measured to take: Markdown, from tests/results."""
    return _table_with_bars("ranking", "CPU time, one thread", _RANKING)


_PEERS = {"torchreid": "torchreid", "fastreid": "fast-reid", "official": "the official code"}
_FEATURE_SIZES = {"512": "", "2,048": "_2048"}  # by the end of their figures' names
_RANKING = (
    (
        "features of 512 dimensions to CMC, mAP, mINP over the bare sgemm, Market-1501",
        "ranking.end_to_end_vs_sgemm_market",
        ".2f",
        "≤ 1.15",
    ),
    ("the same, MSMT17", "ranking.end_to_end_vs_sgemm_msmt17", ".2f", "≤ 1.15"),
    ("the same, CUHK03", "ranking.end_to_end_vs_sgemm_cuhk03", ".2f", "≤ 1.25"),
    (
        "all that `evaluate` asks for, top 10 and ROC too, over the bare sgemm, Market-1501",
        "ranking.evaluate_vs_sgemm_market",
        ".2f",
        "≤ 1.20",
    ),
    ("the same, MSMT17", "ranking.evaluate_vs_sgemm_msmt17", ".2f", "≤ 1.20"),
    ("the same, CUHK03", "ranking.evaluate_vs_sgemm_cuhk03", ".2f", "≤ 1.35"),
    ("`evaluate` by cosine, Market-1501", "ranking.evaluate_cosine_vs_sgemm_market", ".2f", "–"),
    ("the same, MSMT17", "ranking.evaluate_cosine_vs_sgemm_msmt17", ".2f", "–"),
    ("the same, CUHK03", "ranking.evaluate_cosine_vs_sgemm_cuhk03", ".2f", "–"),
    (
        "`evaluate` with features of 2,048, Market-1501",
        "ranking.evaluate_vs_sgemm_market_2048",
        ".2f",
        "–",
    ),
    ("the same by cosine", "ranking.evaluate_cosine_vs_sgemm_market_2048", ".2f", "–"),
    *(
        (
            f"{who}'s Cython over the bare sgemm, features of {size}, Market-1501, as recorded",
            f"ranking.recorded_{peer}_vs_sgemm_market{end}",
            ".1f",
            "–",
        )
        for size, end in _FEATURE_SIZES.items()
        for peer, who in _PEERS.items()
    ),
    *(
        (
            f"{who}'s Cython, as recorded, over `evaluate`, features of {size}, Market-1501",
            f"ranking.vs_recorded_{peer}_market{end}",
            ".1f",
            "–",
        )
        for size, end in _FEATURE_SIZES.items()
        for peer, who in _PEERS.items()
    ),
    (
        "features to figures over faiss' top 50 with a metric, Market-1501",
        "ranking.vs_faiss_top50_market",
        ".2f",
        "≤ 1.05",
    ),
    (
        "`np.argsort` over ranking, distances given, Market-1501",
        "ranking.vs_argsort_market",
        ".0f",
        "≥ 65",
    ),
    ("the same, CUHK03", "ranking.vs_argsort_cuhk03", ".0f", "≥ 38"),
    (
        "stable `np.argsort`, which gives these ranks, Market-1501",
        "ranking.vs_stable_argsort_market",
        ".0f",
        "–",
    ),
    ("the same, CUHK03", "ranking.vs_stable_argsort_cuhk03", ".0f", "–"),
    (
        "ranking, distances given, over one read of them, Market-1501",
        "ranking.vs_one_read_market",
        ".1f",
        "–",
    ),
    ("wall-clock gain of two threads", "ranking.two_threads", ".2f", "≥ 1.5"),
    ("memory above the features, 516,000 x 512 (MiB)", "ranking.memory_516k_mib", ".0f", "≤ 32"),
    ("single gallery shot, exact, 700 people (s)", "ranking.single_shot_seconds", ".3f", "≤ 0.08"),
    ("re-ranking, features to figures, Market-1501 (s)", "rerank.market_seconds", ".1f", "≤ 7"),
    ("memory of that above the features (MiB)", "rerank.market_mib", ".0f", "≤ 300"),
)


def synthesis_table() -> str:
    """What synthetic sets were measured to cost and how hard they are: Markdown, from results."""
    return _table_with_bars("synthesis", "synthetic people", _SYNTHESIS)


_SYNTHESIS = (
    ("all 9,290 pairs of PIT, wall-clock (s)", "synthesis.pit_set_seconds", ".0f", "≤ 120"),
    (
        "pairs a second and core, encoded and written",
        "synthesis.pit_pairs_per_core_second",
        ".0f",
        "≥ 50",
    ),
    (
        "ReID shots a second and core, `hard`",
        "synthesis.reid_shots_per_core_second",
        ".0f",
        "≥ 50",
    ),
    ("rasterising a body, 512x256 samples (ms)", "synthesis.raster_ms", ".1f", "≤ 4"),
    ("texels that a face covers", "synthesis.atlas_coverage", ".1%", "100%"),
    ("faces flat or turned over in the atlas", "synthesis.atlas_flipped_faces", ".2%", "< 0.5%"),
    ("mAP of a colour histogram, `easy`", "synthesis.histogram_map_easy", ".1%", "–"),
    ("the same, `normal`", "synthesis.histogram_map_normal", ".1%", "–"),
    ("the same, `hard`", "synthesis.histogram_map_hard", ".1%", "< 15%"),
    (
        "the same, `hard` without blur, low resolution and occlusion",
        "synthesis.histogram_map_hard_sharp",
        ".1%",
        "< 15%",
    ),
)


def teaching_table() -> str:
    """What is learned from synthetic people: Markdown, from tests/results."""
    value, where = _read_figures("teaching")
    minutes = value["teaching.training_cpu_seconds"] / 60
    what = f"held-out textures, {minutes:.0f} CPU minutes of training ({where})"
    rows = [f"| {what} | PSNR (dB) | of seen texels | of unseen | SSIM |", "|---|---|---|---|---|"]
    for name, words in (
        ("san_pg", "SAN-PG, recipe `pit-small`"),
        ("nearest", "the texture of the training image of the nearest colours"),
        ("mean", "the mean training texture"),
    ):
        parts = [value[f"teaching.psnr_{name}_{part}"] for part in ("all", "seen", "unseen")]
        shown = " | ".join(f"{part:.2f}" for part in parts)
        rows.append(f"| {words} | {shown} | {value[f'teaching.ssim_{name}']:.3f} |")
    return "\n".join([*rows, "", _table_with_bars("teaching", "gain and `hard`", _TEACHING)])


_TEACHING = (
    ("PSNR of SAN-PG above the mean texture (dB)", "san_pg.psnr_gain_over_mean_db", ".2f", "≥ 3"),
    ("above the nearest (dB)", "san_pg.psnr_gain_over_nearest_db", ".2f", "≥ 2"),
    ("mAP of a colour histogram at `hard`", "synthesis.hard_histogram_map", ".1%", "–"),
    (
        "of the encoder alone, recipe `synthetic-baseline`, other people",
        "synthesis.hard_baseline_map",
        ".1%",
        "≥ twice that",
    ),
    ("CPU time of training it (s)", "teaching.encoder_training_cpu_seconds", ".0f", "≤ 600"),
)


def generator_table() -> str:
    """What the generator that ships reaches, beside the oracle: Markdown, from tests/results."""
    file = ROOT / "tests" / "results" / "generator.json"
    value, where = _read_figures("generator") if file.is_file() else ({}, _UNMEASURED)
    return figures_table(value, where)


def training_table() -> str:
    """What training and inference were measured to take: Markdown, from tests/results."""
    return _table_with_bars("training", "ratios of CPU time, one thread", _TRAINING)


_TRAINING = (
    (
        "official step over ours, ResNet-50 256x128, 8 images",
        "training.joint_step_vs_official",
        ".2f",
        "≥ 1.6",
    ),
    (
        "step with 64x64 textures and the light plan over a baseline step",
        "training.light_decoder_vs_baseline",
        ".2f",
        "≤ 1.3",
    ),
    (
        "images a second, augmented, with 256x256 textures, over the official transforms",
        "training.data_path_vs_official",
        ".1f",
        "≥ 8",
    ),
    (
        "the same with 64x64 textures",
        "training.data_path_light_vs_official",
        ".1f",
        "–",
    ),
    (
        "textures a second in batches over one by one",
        "training.infer_vs_official",
        ".1f",
        "≥ 1.6",
    ),
    ("the same by onnxruntime", "training.infer_onnx_vs_official", ".1f", "≥ 2"),
    (
        "images a second with the threads of the default over the better of one and two",
        "training.default_vs_best_threads",
        ".2f",
        "≥ 0.95",
    ),
    (
        "the same beside two busy processes, over one thread",
        "training.contended_vs_one_thread",
        ".2f",
        "≥ 0.7",
    ),
    ("times that a step waits for its device", "training.host_waits_per_step", ".0f", "≤ 1"),
    ("memory of L_TR over four maps, batch of 512 (MiB)", "training.l_tr_512_mib", ".0f", "≤ 80"),
    (
        "killed at three points, resumed: the same bytes (1: yes)",
        "training.resume_bit_identical",
        ".0f",
        "1",
    ),
    ("peak memory of our step (MiB)", "training.joint_step_peak_mib", ".0f", "–"),
    ("peak memory of the official step (MiB)", "training.official_step_peak_mib", ".0f", "–"),
)


def run_costs() -> str:
    """What runs on the published data sets cost, computed from measured steps: Markdown."""
    return costs_table(*_read_figures("training"))


def scale_table() -> str:
    """What workers and nodes do with large work, computed from measured parts: Markdown."""
    file = ROOT / "tests" / "results" / "nodes.json"
    nodes, where = _read_figures("nodes") if file.is_file() else ({}, _UNMEASURED)
    return table_of_scale(_read_figures("training")[0], nodes, where)


def baselines_table() -> str:
    """What the parts of strong baselines bring, beside what was published: Markdown."""
    file = ROOT / "tests" / "results" / "baselines.json"
    value, where = _read_figures("baselines") if file.is_file() else ({}, _UNMEASURED)
    rows = [f"| `hard`, equal CPU time ({where}) | mAP | gain, 95 % interval | published |"]
    rows.append("|---|---|---|---|")
    for name, words, published in BASELINES:
        score, gain = (f"baselines.{name}_val_map", f"baselines.{name}_val_gain")
        shown = f"{value[score]:.1f}%" if score in value else "–"
        rows.append(f"| {words} | {shown} | {_gain_text(value, gain)} | {published} |")
    told = _gain_text(value, "baselines.best_vs_fc512_map")
    rows.append(
        f"| **the best of these, on people who chose nothing** | – | {told} (bar: ≥ 3) | – |"
    )
    return "\n".join(rows)


def _gain_text(value: Mapping[str, float], name: str) -> str:
    """A gain in points with its interval; – where it was not measured."""
    if name not in value:
        return "–"
    return f"{value[name]:+.1f} ({value[f'{name}_low']:+.1f} to {value[f'{name}_high']:+.1f})"


# Name, words, and gains in mAP as published for ResNet-50, with where they were read
BASELINES = (
    ("fc512", "`demo-baseline`: fc512, L_ID, hard triplet", "–"),
    ("bnneck", "BNNeck", "+4.0 Market-1501, +5.3 DukeMTMC (README of Bag of Tricks)"),
    ("gem", "GeM pooling", "with the weighted triplet +2.1 Market-1501 (fast-reid, AGW over BoT)"),
    ("cosine", "cosine softmax (CosFace)", "–"),
    ("circle", "circle loss on classes", "79.3 to 81.7 Market-1501 (Person_reID_baseline_pytorch)"),
    ("soft", "soft-margin triplet", "–"),
    ("weighted", "weighted triplet", "see GeM"),
    ("ema", "moving average of weights", "–"),
    ("jitter", "colour jitter", "–"),
    ("greyscale", "greyscale", "–"),
    ("autoaugment", "AutoAugment", "–"),
    ("mirrored", "mirrored images at test", "–"),
    (
        "together",
        "what gained alone, together",
        "+2.1 Market-1501, +11.6 MSMT17 (fast-reid, SBS over BoT)",
    ),
)


TABLE_MAKERS: dict[str, Callable[[], str]] = {
    "steps": step_table,
    "parameters": flag_reference,
    "demo": demo_table,
    "textures": texture_table,
    "ranking": ranking_table,
    "training": training_table,
    "costs": run_costs,
    "scale": scale_table,
    "datasets": dataset_table,
    "preparing": preparation_table,
    "synthesis": synthesis_table,
    "teaching": teaching_table,
    "generator": generator_table,
    "evidence": evidence_table,
    "evidence summary": evidence_summary,
    "choices": choices_table,
    "baselines": baselines_table,
}


def renew_tables(text: str) -> str:
    """A README with its generated parts made anew."""
    for name, make in TABLE_MAKERS.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text:
            continue
        part = f"{begin}\n{make()}\n{end}".replace("\\", r"\\")  # sub reads backslashes
        text = re.sub(f"{begin}.*?{end}", part, text, flags=re.DOTALL)
    return text


def _bracket_optional(p: Parameter) -> str:
    return p.name if p.is_required else f"[{p.name}]"


def _type_text(p: Parameter) -> str:
    if p.artifact is None:
        return p.type.__name__
    return f"{'output' if p.is_output else 'input'} {p.artifact.kind}"


def _default_text(p: Parameter) -> str:
    if p.is_required:
        return "required"
    return "–" if p.default in (None, "") else f"`{command_line_word(p.default)}`"


def main(root: Path = ROOT) -> None:
    """Renew every README that has generated parts."""
    for name in README_FILES:
        file = root / name
        if file.is_file():
            write_file(file, renew_tables(file.read_text("utf-8")))


if __name__ == "__main__":
    main()
