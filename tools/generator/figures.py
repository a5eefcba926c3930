"""What a generator reaches on people it has never seen, as a table beside the oracles'.

The figures are those of `make bench GROUP=generator`. The oracle copies by the true dense map what
the picture shows and fills the rest with the mean; where it misses a bar itself, the bar is 85 %
of what it reaches (a difference of colours over 0.85). Two more oracles see pictures of the
generator's input size; no bar follows from them.
"""

from collections.abc import Mapping
from typing import NamedTuple

ORACLE_SHARE = 0.85


# Columns: their words, and how the names of their figures begin
COLUMNS = {
    "generator": "generator.",
    "oracle, 256x128": "generator.oracle_",
    "oracle, 128x64": "generator.oracle_at_input_size_",
    "oracle, 128x64, spread": "generator.oracle_at_input_size_spread_",
}


class Row(NamedTuple):
    """A figure: its name, number of digits, and target."""

    words: str
    name: str  # behind one of COLUMNS
    digits: int
    bar: float | None = None
    is_least: bool = True  # whether the bar is the least that will do, or the most


ROWS = (
    Row("garments within 30 degrees of hue and not grey, 24 hues", "hue_share", 2, 0.9),
    Row("the same of the sides that the picture does not show", "hidden_hue_share", 2),
    Row("face and hands, median dE, five skins", "skin_de", 1, 10, is_least=False),
    Row("PSNR above the mean texture, 64 texels (dB)", "psnr_gain_over_mean_db", 2, 5.5),
    Row("PSNR (dB)", "psnr_db", 2),
    Row("of texels that the picture shows", "psnr_seen_db", 2),
    Row("of the others", "psnr_unseen_db", 2),
    Row("PSNR above the mean texture, in the street (dB)", "street_psnr_gain_over_mean_db", 2),
    Row("mean gradient over that of true textures, 128 texels", "gradient_share", 2, 0.6),
    Row("correlation of detail with the true, where seen", "detail_correlation", 2, 0.4),
    Row("the same of textures less the mean texture", "own_detail_correlation", 2),
    Row("distance between views of one person over others'", "view_distance_share", 2),
    Row(
        "mAP of the texture alone at `hard`, over a histogram's", "texture_map_vs_histogram", 2, 2.5
    ),
)


def figures_table(value: Mapping[str, float], where: str) -> str:
    """The table: Markdown.

    Args:
        value: the figures of the group by their names; none before they are measured.
        where: what they were measured on and when.
    """
    rows = [
        f"| people it has never seen ({where}) | {' | '.join(COLUMNS)} | bar |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    if not value:
        return "\n".join(
            [*rows, *(f"| {row.words} {'| – ' * (len(COLUMNS) + 1)}|" for row in ROWS)]
        )
    for row in ROWS:
        found = [value[begin + row.name] for begin in COLUMNS.values()]
        shown = " | ".join(f"{each:.{row.digits}f}" for each in found)
        rows.append(f"| {row.words} | {shown} | {_bar_text(row, *found[:2])} |")
    return "\n".join(rows)


def reachable_bar(row: Row, oracle: float) -> float | None:
    """What is asked of a generator, given what the oracle reaches; None for nothing."""
    if row.bar is None or _reaches(oracle, row.bar, row):
        return row.bar
    return oracle * ORACLE_SHARE if row.is_least else oracle / ORACLE_SHARE


def _reaches(figure: float, bar: float, row: Row) -> bool:
    return figure >= bar if row.is_least else figure <= bar


def _bar_text(row: Row, ours: float, oracle: float) -> str:
    bar = reachable_bar(row, oracle)
    if bar is None:
        return "–"
    sign, asked = "≥" if row.is_least else "≤", row.bar
    text = f"{sign} {asked:.{row.digits}f}"
    if bar != asked:
        share = "85 % of the first oracle" if row.is_least else "the first oracle / 0.85"
        text += f"; {share}: {sign} {bar:.{row.digits}f}"
    return text if _reaches(ours, bar, row) else f"{text} (missed)"
