"""Pictures: what is drawn, in which order, and that nothing global is touched."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import keras_musictag as kmt
from keras_musictag.cli import main
from keras_musictag.errors import MissingExtraError, MusicTagError
from keras_musictag.evaluation.results import Comparison, Estimate, Evaluation, TagScore
from keras_musictag.plots import (
    PlotError,
    new_axes,
    plot_confusion,
    plot_pareto,
    plot_report,
    plot_tag_scores,
    plot_taggram,
    plot_top_tags,
    plot_training,
    save_figure,
    save_training,
)
from keras_musictag.training.finetuning import FineTuneReport

matplotlib = pytest.importorskip("matplotlib")

TAGS = ("rock", "jazz", "folk")
LOG = (
    {"step": 100, "loss": 0.30, "waiting": 0.1, "pr_auc": 0.50, "roc_auc": 0.70},
    {"step": 200, "loss": 0.25, "waiting": 0.1, "pr_auc": 0.62, "roc_auc": 0.69},
    {"step": 300, "loss": 0.24, "waiting": 0.1, "pr_auc": 0.62, "roc_auc": 0.68},
    {"step": 400, "loss": 0.23, "waiting": 0.1, "pr_auc": 0.61, "roc_auc": 0.66},
)


def evaluation(count=3, low=0.05, **changed):
    """Tags whose areas rise with their number, from 0.7 to 0.9."""
    rows = []
    for number, value in enumerate(np.linspace(0.7, 0.9, count)):
        roc, pr = Estimate(value, value - low, value + low), Estimate(value - 0.2, value - 0.3, value - 0.1)
        rows.append(TagScore(f"tag {number}", 10 + number, 90 - number, 5, roc, pr))
    fields = {"roc_auc": Estimate(0.8, 0.75, 0.85), "pr_auc": Estimate(0.6), "rows": tuple(rows)} | changed
    return Evaluation(dataset="mine", split="test", n_clips=100, n_groups=50, model="tiny", **fields)


def comparison():
    rows = tuple(
        TagScore(tag, 3, 7, 3, Estimate(value, value - 0.1, value + 0.1), Estimate(value))
        for tag, value in zip(TAGS, (-0.1, 0.2, 0.0), strict=True)
    )
    return Comparison(a=evaluation(), b=evaluation(), rows=rows, roc_auc=Estimate(0.03), pr_auc=Estimate(0.03))


def gram(windows=4, tags=TAGS, hop=1.0, window=3.0):
    probabilities = np.linspace(0.1, 0.8, len(tags)) * np.ones((windows, 1))
    return kmt.Taggram(tuple(tags), np.arange(windows) * hop, probabilities.astype("float32"), window, hop, "tiny")


def report(**changed):
    fields = {"dataset": "mine", "split": "test", "n_clips": 9, "kept": "head", "log_likelihood": {}, "tags": TAGS}
    return FineTuneReport(**fields | changed)


DRAWN = {
    "top tags": lambda ax=None: plot_top_tags({"rock": 0.2, "jazz": 0.7}, ax),
    "taggram": lambda ax=None: plot_taggram(gram(), ax),
    "scores": lambda ax=None: plot_tag_scores(evaluation(), ax),
    "comparison": lambda ax=None: plot_tag_scores(comparison(), ax, metric="pr_auc"),
    "confusion": lambda ax=None: plot_confusion(np.eye(3, dtype=int), TAGS, ax),
    "pareto": lambda ax=None: plot_pareto(TAGS, [1, 2, 3], [0.7, 0.9, 0.8], [1, 2, 3], ax),
    "training": lambda ax=None: plot_training(LOG, ax),
}


def ticks(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def is_cut(figure):
    """Whether anything leaves it."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height


# === All of them ===


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_axes_are_used_and_returned_and_settings_left_alone(draw, tmp_path):
    before = dict(matplotlib.rcParams)
    own = new_axes(6, 4)
    assert draw(own) is own and own.get_figure().axes[0] is own
    fresh = draw()
    assert fresh is not own and fresh.has_data()
    save_figure(fresh, tmp_path / "picture.png")
    save_figure(fresh.figure, tmp_path / "picture.svg")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_without_matplotlib_the_extra_is_named(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"Drawing needs .* pip install 'keras_musictag\[plot\]'"):
        draw()


def test_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys\nfrom keras_musictag.plots import plot_training, plot_top_tags, save_figure\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"save_figure(plot_top_tags({{'rock': 0.2}}), {str(tmp_path / 'a.png')!r})\n"
        "plot_training([{'step': 1, 'loss': 0.5, 'score': 0.1}])\n"
        "print('matplotlib.pyplot' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_plots_are_public():
    assert kmt.plots.plot_taggram is plot_taggram and issubclass(PlotError, MusicTagError)


@pytest.mark.parametrize("count", [1, 10, 50])
def test_no_text_is_cut(count):
    names = [f"tag {number} {'long ' * (number % 7)}" for number in range(count)]
    rng = np.random.default_rng(0)
    shares = rng.random(count)
    counts = np.eye(count, dtype=int)
    drawn = [
        plot_top_tags(dict(zip(names, shares, strict=True)), top=None, title="a title that is long " * 5),
        plot_taggram(gram(tags=names), top=count),
        plot_tag_scores(evaluation(count)),
        plot_confusion(counts, names),
        plot_pareto(names, 10 ** (3 * shares), shares, shares + 0.1, title="speed"),
    ]
    assert [is_cut(ax.figure) for ax in drawn] == [False] * 5
    assert not is_cut(report(tags=tuple(names), evaluation=evaluation(count), confusion=counts).plot())


@pytest.mark.parametrize("name", ["$x^$ and $y_$", "a" * 200, "100 % _new_ <b>\\frac"])
def test_any_name_can_be_drawn(name, tmp_path):
    for number, ax in enumerate(
        (
            plot_top_tags({name: 0.5, "rock": 0.95}, title=name[:40]),
            plot_taggram(gram(tags=(name, "rock"))),
            plot_confusion(np.eye(2, dtype=int), (name, "rock")),
            plot_pareto([name, "rock"], [1, 2], [0.5, 0.6], [1, 1], title=name),
        )
    ):
        save_figure(ax, tmp_path / f"{number}.png")
        assert not is_cut(ax.figure)
    assert len(ticks(plot_top_tags({name: 0.5}))[0]) <= 40


# === Tags ===


def test_top_tags():
    ax = plot_top_tags({"rock": 0.2, "jazz": 0.97, "folk": 0.5, "pop": 0.1}, top=3, title="song.mp3")
    assert ticks(ax) == ["rock", "folk", "jazz"], "from the bottom up"
    assert [bar.get_width() for bar in ax.patches] == [0.2, 0.5, 0.97]
    assert [text.get_text() for text in ax.texts] == ["0.20", "0.50", "0.97"]
    assert [text.get_ha() for text in ax.texts] == ["left", "left", "right"], "the last in its bar"
    assert ax.get_xlim() == (0, 1) and ax.get_xlabel() == "probability" and ax.get_title() == "song.mp3"
    assert len(plot_top_tags({str(n): n / 20 for n in range(20)}).patches) == 10
    assert len(plot_top_tags({str(n): n / 20 for n in range(20)}, top=None).patches) == 20


def test_what_a_tagger_says_can_be_drawn(sine):
    tags = kmt.load("tiny").tag(sine, sr=16_000)
    assert ticks(plot_top_tags(tags))[::-1] == list(tags)[:10]


def test_tag_draws_the_tags_of_one_file(sine, tmp_path):
    soundfile.write(tmp_path / "one.wav", sine, 16_000)
    command = ["tag", str(tmp_path / "one.wav"), "--model", "tiny", "--plot", str(tmp_path / "one.png")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0 and "one.png" in result.stderr and "one.wav" in result.stdout
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(main, [*command, str(tmp_path / "one.wav")])
    assert result.exit_code == 2 and "--plot takes one file; got 2 files" in result.stderr
    result = CliRunner().invoke(main, [*command, "--threshold", "1"])
    assert result.exit_code == 2 and "Was a threshold too high?" in result.stderr


def test_taggram():
    made = gram()
    ax = plot_taggram(made, top=2)
    assert ticks(ax) == ["folk", "jazz"] and ax.yaxis_inverted() and ax.get_xlim() == (1.0, 5.0)
    (mesh,) = ax.collections
    cells = mesh.get_array()
    np.testing.assert_allclose(cells[:, ::2].filled(np.nan), made.probabilities[:, [2, 1]].T)
    assert cells[:, 1::2].mask.all(), "nothing between windows"
    assert mesh.get_clim() == (0, 1) and "time (s)" in ax.get_xlabel() and "3.0 s window" in ax.get_xlabel()
    assert ax.get_title() == "Taggram (tiny)" and ax.figure.axes[1].get_ylabel() == "probability"


def test_a_taggram_with_gaps_shows_them():
    """Windows of 1 s, one every 4 s: three seconds in four were not heard."""
    ax = plot_taggram(gram(windows=3, hop=4.0, window=1.0))
    edges = ax.collections[0].get_coordinates()[0, :, 0]
    assert edges.tolist() == [0, 1, 4, 5, 8, 9]
    # Windows that are nearer than the hop, as the last one may be, share the border.
    close = gram()
    close.starts[-1] = 2.2
    edges = plot_taggram(close).collections[0].get_coordinates()[0, :, 0]
    np.testing.assert_allclose(edges, [1, 2, 2, 3, 3, 4, 4, 4.2])


# === Scores ===


def test_tag_scores():
    ax = plot_tag_scores(evaluation())
    assert ticks(ax) == ["tag 0 (10)", "tag 1 (11)", "tag 2 (12)"], "from the bottom up"
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.7, 0.8, 0.9])
    spans, chances = (np.array(lines.get_segments())[:, :, 0] for lines in ax.collections)
    np.testing.assert_allclose(spans, [[0.65, 0.75], [0.75, 0.85], [0.85, 0.95]])
    assert (chances == 0.5).all() and ax.get_xlim() == (0.5, 1)
    (mean,) = ax.lines
    assert mean.get_xdata() == [0.8, 0.8] and "mean of tags, 0.800 [0.750, 0.850]" in ax.get_xlabel()
    assert ax.get_title() == "tiny\nmine test, 100 clips"


def test_tag_scores_of_pr_auc_begin_at_0_and_have_chances_of_their_own():
    ax = plot_tag_scores(evaluation(), metric="pr_auc")
    np.testing.assert_allclose(np.array(ax.collections[1].get_segments())[:, 0, 0], [0.10, 0.11, 0.12])
    assert ax.get_xlim() == (0, 1)
    assert plot_tag_scores(evaluation(low=0.3)).get_xlim() == (0, 1), "an interval reaches below chance"


def test_tag_scores_leave_out_what_has_none():
    rows = (*evaluation().rows, TagScore("never", 0, 100, 0, None, None))
    assert "never (0)" not in ticks(plot_tag_scores(evaluation(rows=rows)))
    alone = (TagScore("rock", 5, 5, 5, Estimate(0.8), Estimate(0.7)),)
    (chances,) = plot_tag_scores(evaluation(rows=alone)).collections
    assert len(chances.get_segments()) == 1, "no interval, no stroke"


def test_tag_scores_of_a_comparison():
    ax = plot_tag_scores(comparison())
    assert ticks(ax) == ["rock (3)", "folk (3)", "jazz (3)"]
    assert [bar.get_width() for bar in ax.patches] == [-0.1, 0.0, 0.2]
    assert [line.get_xdata()[0] for line in ax.lines] == [0.03, 0] and "+0.030" in ax.get_xlabel()
    assert ax.get_title().startswith("tiny minus tiny\n")


def test_confusion():
    counts = np.array([[2, 0, 1], [0, 3, 0], [0, 0, 0]])
    ax = plot_confusion(counts, TAGS)
    assert {text.get_position(): text.get_text() for text in ax.texts} == {(0, 0): "2", (2, 0): "1", (1, 1): "3"}
    np.testing.assert_allclose(ax.images[0].get_array(), [[2 / 3, 0, 1 / 3], [0, 1, 0], [0, 0, 0]])
    assert ticks(ax) == list(TAGS) == [label.get_text() for label in ax.get_xticklabels()]
    assert ax.get_ylim() == (2.5, -0.5) and (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_report():
    one = report(evaluation=evaluation()).plot()
    assert len(one.axes) == 1 and one.axes[0].get_title().startswith("tiny\n")
    both = plot_report(report(evaluation=evaluation(), confusion=np.eye(3, dtype=int)))
    assert [ax.get_xlabel().split()[0] for ax in both.axes] == ["ROC-AUC", "predicted"]
    both.draw_without_rendering()
    left, right = (ax.get_tightbbox() for ax in both.axes)
    assert left.x1 <= right.x0, "names of the second do not cover the first"
    none = plot_report(report())
    assert not none.axes and none.get_suptitle() == "No tag could be scored on mine, test, 9 clips"


# === Pareto ===


def test_pareto():
    names, times, scores = ["fast", "beaten", "good"], [1, 20, 10], [0.7, 0.8, 0.9]
    ax = plot_pareto(names, times, scores, [1, 4, 2], score="ROC-AUC (mine)", title="here")
    (front,) = ax.lines
    assert list(front.get_xdata()) == [1, 10] and list(front.get_ydata()) == [0.7, 0.9]
    (circles,) = ax.collections
    np.testing.assert_allclose(circles.get_offsets(), [[20, 0.8], [10, 0.9], [1, 0.7]])  # the smallest on top
    np.testing.assert_allclose(circles.get_sizes(), [900, 450, 225])
    filled = [tuple(colour[:3]) != (1, 1, 1) for colour in circles.get_facecolor()]
    assert filled == [False, True, True]
    assert {text.get_text(): text.xy for text in ax.texts} == {
        name: (x, y) for name, x, y in zip(names, times, scores, strict=True)
    }
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "time for one clip (ms)"
    assert (
        ax.get_title() == "here\nfilled: no other model is both faster and better"
        and ax.get_ylabel() == "ROC-AUC (mine)"
    )
    assert plot_pareto(names[:1], times[:1], scores[:1], [1]).get_title() == ""
    ax = plot_pareto(names, times, scores, [1, 4, 2], intervals=[(0.6, 0.75), None, (0.85, 0.9)])
    _, *whiskers = ax.lines
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in whiskers] == [
        ([1, 1], [0.6, 0.75]), ([10, 10], [0.85, 0.9]),
    ]  # fmt: skip
    assert " ".join(ax.get_title().split()) == "filled: no other model is both faster and better; lines: 95 % intervals"


def test_names_of_near_models_do_not_cover_each_other():
    ax = plot_pareto(["first model", "second model", "third model"], [10, 10.5, 100], [0.8, 0.8005, 0.9], [1, 1, 1])
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


def test_nor_do_those_of_many():
    from matplotlib.text import Text

    names, near = [f"model number {number}" for number in range(12)], np.arange(12) / 12
    ax = plot_pareto([*names, "other"], [*(10 + 5 * near), 100], [*(0.8 + 0.01 * near), 0.9], [1] * 13)
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the circle
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


# === Training ===


def write_log(folder, text="step,loss,waiting,score\n10.0,0.5,0.1,0.6\n20.0,nan,0.1,0.7\n"):
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(text, encoding="utf-8")
    return folder


def test_training():
    ax = plot_training(LOG, title="mine")
    right = ax.figure.axes[1]
    (loss,) = ax.lines
    assert list(loss.get_xdata()) == [100, 200, 300, 400] and list(loss.get_ydata()) == [0.30, 0.25, 0.24, 0.23]
    score, best, circle = right.lines
    assert list(score.get_ydata()) == [0.50, 0.62, 0.62, 0.61] and list(best.get_xdata()) == [300, 300]
    assert (circle.get_xdata()[0], circle.get_ydata()[0]) == (300, 0.62), "the last of the best, as training keeps"
    assert ax.get_title() == "mine\nbest PR-AUC 0.62 at step 300 (circle)"
    assert ax.get_xlabel() == "optimizer step" and ax.get_xlim()[0] == 0
    assert ax.get_ylabel() == "loss in training (solid)" and right.get_ylabel() == "PR-AUC in validation (dots)"
    assert loss.get_linestyle() != score.get_linestyle(), "apart without colours"
    other = plot_training(LOG, score="roc_auc")
    assert other.get_title() == "Training\nbest ROC-AUC 0.7 at step 100 (circle)"


def test_training_from_files(tmp_path):
    run = write_log(tmp_path / "mine" / "run")
    for place in (run, run / "log.csv", str(tmp_path / "mine")):
        assert plot_training(place).get_title().endswith("best score 0.7 at step 20 (circle)")
    save_training(run)
    assert (run / "log.png").read_bytes().startswith(b"\x89PNG")


def test_training_without_scores_has_the_loss_only():
    ax = plot_training([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}])
    assert len(ax.figure.axes) == 1 and ax.get_title() == "Training"
    blind = plot_training([{"step": 1, "loss": 0.5, "score": float("nan")}])
    assert blind.get_title() == "Training", "no best"


def test_a_run_never_fails_for_its_picture(tmp_path, monkeypatch):
    save_training(tmp_path)
    assert not list(tmp_path.iterdir()), "no log"
    save_training(write_log(tmp_path / "empty", ""))
    run = write_log(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    save_training(run)
    assert not list(tmp_path.rglob("*.png"))


# === Complaints ===


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_top_tags({}), "nothing to draw: no tags were given. Was a threshold too high"),
        (lambda: plot_top_tags({"rock": 0.5}, top=0), "top must be at least 1; got 0"),
        (lambda: plot_taggram(gram(windows=0)), "the taggram has 0 windows and 3 tags"),
        (lambda: plot_taggram(gram(), top=-1), "top must be at least 1; got -1"),
        (
            lambda: plot_tag_scores(evaluation(rows=(TagScore("rock", 0, 9, 0, None, None),))),
            "nothing to draw: none of 1 tags has a ROC-AUC",
        ),
        (lambda: plot_confusion(np.zeros((0, 0)), ()), "nothing to draw: no tags"),
        (lambda: plot_confusion(np.eye(2), TAGS), r"a column for each of 3 tags; got the shape \(2, 2\)"),
        (lambda: plot_pareto([], [], [], []), "nothing to draw: no models"),
        (lambda: plot_pareto(["a"], [1, 2], [1], [1]), "must have the same length; got 1, 2, 1 and 1"),
        (lambda: plot_pareto(["a"], [1], [1], [1], intervals=[]), "intervals must have the length of names, 1; got 0"),
        (
            lambda: plot_pareto(["a"], [1], [0.9], [1], intervals=[(0.5, 0.8)]),
            "The score of a, 0.9, is outside of its interval, 0.5 to 0.8",
        ),
        (lambda: plot_pareto(["a", "b"], [1, 0], [1, 1], [1, 1]), "Times and sizes must be above 0; got 0"),
        (lambda: plot_training([]), "the log has no rows; nothing was validated yet"),
        (lambda: plot_training([*LOG, {"step": 1}]), "Each row of a log must have step and loss; got step"),
        (lambda: plot_training(LOG, score="f1"), "The log has no score 'f1', only pr_auc, roc_auc"),
        (lambda: plot_training([{"step": 1, "loss": 2.0}], score="f1"), "The log has no score 'f1', only none"),
    ],
)
def test_complaints(draw, message):
    with pytest.raises(PlotError, match=message):
        draw()


def test_unknown_metrics():
    with pytest.raises(PlotError, match="metric must be one of 'roc_auc', 'pr_auc'; got 'accuracy'"):
        plot_tag_scores(evaluation(), metric="accuracy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,loss\n1,two\n", "is not the log of a run: could not convert"),
        ("step,loss\n1,2,3,4\n", "is not the log of a run"),
        ("step,loss\n", "the log has no rows"),
        ("a,b\n1,2\n", "must have step and loss; got a, b"),
    ],
)
def test_invalid_logs(text, message, tmp_path):
    with pytest.raises(PlotError, match=message):
        plot_training(write_log(tmp_path / "run", text))
    with pytest.raises(PlotError, match=r"There is no log\.csv in .*nowhere\. Give the folder of a run, or the file"):
        plot_training(tmp_path / "nowhere")
