"""The curves of a report: CMC and ROC."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from san_core.evaluation.roc import LEAST_FPR, Roc
from san_core.pages import page


@page.own_look()
def cmc_figure(cmcs: Mapping[str, NDArray[np.float64]]) -> Figure:
    """CMC curves (K,) by name, the first of them the widest line."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = page.add_axes(figure)
    for i, (name, cmc) in enumerate(cmcs.items()):
        axes.plot(np.arange(1, len(cmc) + 1), cmc, **_line_style(i, len(cmcs)), label=name)
    axes.set_xlim(1, max(map(len, cmcs.values())))
    axes.set_xticks([1, *range(5, int(axes.get_xlim()[1]) + 1, 5)])
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("rank")
    axes.set_ylabel("matching rate")
    page.add_legend(axes, loc="lower right")
    return figure


@page.own_look()
def roc_figure(rocs: Mapping[str, Roc]) -> Figure:
    """The ROC curves by name, the first of them the widest line; the FPR is on a log scale."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = page.add_axes(figure)
    for i, (name, roc) in enumerate(rocs.items()):
        seen = np.geomspace(LEAST_FPR, 1, 201)
        rates = [roc.tpr_at(fpr) for fpr in seen]
        axes.plot(seen, rates, **_line_style(i, len(rocs)), label=name)
    axes.set_xscale("log")
    axes.set_xlim(LEAST_FPR, 1)
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    page.add_legend(axes, loc="best")
    return figure


def _line_style(i: int, n: int) -> dict[str, Any]:
    return {"color": page.line_colours(n)[i], "linewidth": 1.6 if i else 2.4}
