"""Writes all that is made of the rows: tables, the lines of the README, and the plot."""

from components.storage.outputs import write_file
from tests.benchmarks.evidence.paper import plot, summary, table
from tests.benchmarks.evidence.rows import RowsFile


def write_pages(kept: RowsFile, large: RowsFile) -> None:
    """Write them to tests/results."""
    write_file(table.TABLE_FILE, table.results_table(kept, large) + "\n")
    write_file(summary.SUMMARY_FILE, summary.summary_text(kept, large) + "\n")
    write_file(plot.PLOT_FILE, plot.results_plot(kept, large))
