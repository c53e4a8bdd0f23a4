"""Plots of tags, scores and training runs, in one style: readable in grey and with colour blindness, units on axes.

Every function draws into `ax` or, by default, a new figure of suitable size, and returns the axes. `save_figure` writes
a figure to a file. Matplotlib's settings and the global state of `pyplot` are not changed, so the functions can be used
in servers and threads. Needs the extra `plot`.
"""

from .pareto import plot_pareto
from .score_plots import plot_confusion, plot_probing, plot_report, plot_tag_scores
from .style import PlotError, new_axes, new_figure, save_figure
from .taggrams import plot_taggram, plot_top_tags
from .training_curves import plot_training, save_training

__all__ = [
    "PlotError",
    "new_axes",
    "new_figure",
    "plot_confusion",
    "plot_pareto",
    "plot_probing",
    "plot_report",
    "plot_tag_scores",
    "plot_taggram",
    "plot_top_tags",
    "plot_training",
    "save_figure",
    "save_training",
]
