"""The README's table of models, from their specs: `python benchmarks/zoo_table.py [--check]`.

Its figures are those that `benchmarks/agreement.py --write` and `benchmarks/latency.py --write` measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import keras_musictag as kmt
from keras_musictag.spec import ModelSpec
from keras_musictag.weights import write_atomically

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- models: python benchmarks/zoo_table.py -->", "<!-- end of models -->"
ORDER = ("musicnet_crnn", "baseline_cnn", "large_cnn", "musicnn_mtt", "vgg_mtt", "musicnn_msd", "vgg_msd", "tiny")
HEADER = (
    "name", "parameters", "weights", "clip to tags", "agreement with `musicnn_mtt`: correlation", "ROC-AUC", "PR-AUC",
    "genres: ROC-AUC", "published ROC-AUC / PR-AUC",
)  # fmt: skip


def row(spec: ModelSpec) -> tuple[str, ...]:
    """Cells of one model; what was not measured is empty."""
    heard = next((item for item in spec.metrics if "hears it" in item["dataset"]), {})
    genres = next((item for item in spec.metrics if "genres" in item["dataset"]), {})
    published = next((item for item in spec.metrics if "published" in item["source"]), {})
    speed = next((item for item in spec.latency if item.scope == "waveform"), None)
    count = spec.weights.size or 0 if spec.weights else 0
    size = f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"
    return (
        f"`{spec.name}`", f"{spec.claims.get('parameters', 0):,}", size,
        f"{spec.window_seconds:.0f} s: {speed.median_ms:.0f} ms" if speed else "",
        f"{heard['correlation']:.3f}" if "correlation" in heard else "",
        interval(heard, "roc_auc"), interval(heard, "pr_auc"), interval(genres, "roc_auc"),
        f"{published['roc_auc']:.4f} / {published['pr_auc']:.4f}" if "roc_auc" in published else "",
    )  # fmt: skip


def interval(item: dict, name: str) -> str:
    """`0.912 [0.901, 0.922]`, or nothing."""
    if name not in item:
        return ""
    return f"{item[name]:.3f} [{item[f'{name}_low']:.3f}, {item[f'{name}_high']:.3f}]"


def table() -> str:
    """Markdown of all registered models but those of plug-ins."""
    rows = [HEADER, ("---",) * len(HEADER), *(row(kmt.model_info(name)) for name in ORDER)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def main() -> None:
    """Rewrite the table, or fail if it is not current."""
    parser = argparse.ArgumentParser(description="Write the README's table of models.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the table is not current")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    new = f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"
    if check and new != text:
        sys.exit("The README's table of models is not current. Run: python benchmarks/zoo_table.py")
    if new != text:
        write_atomically(README, new.encode())


if __name__ == "__main__":
    main()
