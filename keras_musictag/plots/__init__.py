"""Pictures. One look for all of them: readable without colour vision and in grey, the best at the top, units on axes.

Every function takes `ax=` to draw into an existing figure, and returns the axes; without, it makes a figure that
fits what is drawn. `save_figure` writes it. Matplotlib's settings and the global state of `pyplot` are left alone, so
all this can be used in servers and threads. Needs the extra `plot`.
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
