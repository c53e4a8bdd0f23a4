"""Model cards: the README.md of a zoo entry, a saved tagger or a Hub repository, generated from its spec.

Only what the spec knows is said, and what it does not know is said to be missing. `python -m keras_musictag.cards`
writes the cards of the zoo and fails if a model that has weights leaves a field empty.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .facts import SCORES, Latency
from .spec import SPEC_FILE, ModelSpec

# Identifiers that the Hub knows. Others are written as its `license: other`.
_HUB_LICENSES = (
    "apache-2.0", "mit", "isc", "bsd-2-clause", "bsd-3-clause", "unlicense", "cc0-1.0", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "mpl-2.0",
)  # fmt: skip
_HUB_DATASETS = "https://huggingface.co/datasets/"

_NEEDED = (
    "description", "intended_use", "training_data", "trained_on", "license", "metrics", "latency", "limits", "citation",
)  # fmt: skip

_SCORE_NAMES = {
    "accuracy": "accuracy",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "correlation": "correlation with the teacher",
    "teacher_roc_auc": "ROC-AUC against the teacher's top tenth",
}
_METRIC_COLUMNS = {
    "dataset": "data set", "split": "split", "n": "n", **_SCORE_NAMES,
    "machine": "machine", "date": "date", "note": "note", "source": "source",
}  # fmt: skip
_ROLES = {
    "labelled": "sound and labels",
    "unlabelled": "sound, labelled by the teacher",
    "teacher": "teacher",
    "teacher_data": "what the teacher was trained on",
}
_SCOPES = {"log_mel": "log-mel", "waveform": "waveform in memory", "file": "file (44.1 kHz stereo FLAC)"}


# === Public ===


def model_card(spec: ModelSpec, name: str | None = None) -> str:
    """Markdown with the YAML front matter that the Hugging Face Hub reads.

    Args:
        spec: what the card says. A figure without data set, split and n cannot get in (`ModelSpec` refuses it).
        name: what `load` is called with in the example; `spec.name` unless told otherwise.

    Returns:
        Text of a README.md.

    Example:
        >>> import keras_musictag as kmt
        >>> card = model_card(kmt.model_info("musicnn_mtt"))
        >>> card.splitlines()[1]
        'library_name: keras'
        >>> [line[3:] for line in card.splitlines() if line.startswith("## ")]
        ['Use', 'Input', 'Training data and licences', 'Evaluation', 'Latency', 'Limits', 'Cite', 'Tags']
    """
    sections = {
        "Use": _use(spec, name or spec.name),
        "Input": _input(spec),
        "Training data and licences": _training(spec),
        "Evaluation": _evaluation(spec),
        "Latency": _latency(spec),
        "Limits": _limits(spec),
        "Cite": ["```bibtex", spec.citation, "```"]
        if spec.citation.startswith("@")
        else [spec.citation or "Not stated."],
        "Tags": [f"{len(spec.tags)}, in the order of the outputs: {', '.join(spec.tags)}."],
    }
    lines = [*_front_matter(spec), "", f"# {spec.name}", "", *_summary(spec)]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def empty_fields(spec: ModelSpec) -> list[str]:
    """Names of the fields that the card of a model with weights needs and this spec leaves empty.

    Args:
        spec: with or without weights; `"weights"` is among the names if it has none.

    Returns:
        Names of fields of `ModelSpec`; none if the card is complete. Metrics without a score count as empty.

    Example:
        >>> import keras_musictag as kmt
        >>> empty_fields(kmt.model_info("musicnn_mtt").retrained())[:3]
        ['weights', 'description', 'intended_use']
    """
    empty = [] if spec.weights else ["weights"]
    for field in _NEEDED:
        value = getattr(spec, field)
        if field == "metrics":
            value = [metric for metric in value if any(metric.get(score) is not None for score in SCORES)]
        if not (value.strip() if isinstance(value, str) else value):
            empty.append(field)
    if spec.weights and not spec.weights.size:
        empty.append("weights.size")
    return empty


def write_cards() -> list[str]:
    """Write the card of every zoo entry beside its spec; returns the names of those that changed.

    Raises:
        CacheError: the zoo cannot be written.
    """
    from .weights import write_atomically

    changed = []
    for spec in _zoo():
        assert spec.root is not None
        card = spec.root / "README.md"
        text = model_card(spec)
        if not card.is_file() or card.read_text(encoding="utf-8") != text:
            write_atomically(card, text.encode())
            changed.append(spec.name)
    return changed


def update_zoo(name: str, **changes: Any) -> None:
    """Change what the zoo says of a model: its spec, and the card with it.

    Args:
        name: of the zoo entry.
        changes: fields, as in `dataclasses.replace`.

    Raises:
        SpecError: there is no such entry, or the changes do not make a valid spec.
        CacheError: the zoo cannot be written.
    """
    from .registry import zoo_folder
    from .weights import write_atomically

    folder = zoo_folder() / name
    spec = dataclasses.replace(ModelSpec.from_folder(folder), **changes)
    write_atomically(folder / SPEC_FILE, spec.to_json().encode())
    write_cards()


def main() -> int:
    """Write the cards of the zoo and name what they lack; returns 1 if a model with weights lacks anything."""
    import click

    click.echo(f"Cards written: {', '.join(write_cards()) or 'none, all are current'}.")
    lacking = {spec.name: empty_fields(spec) for spec in _zoo() if spec.weights}
    for name, fields in lacking.items():
        if fields:
            click.echo(f"{name} has weights, but its spec.json leaves empty: {', '.join(fields)}.", err=True)
    return int(any(lacking.values()))


def _zoo() -> list[ModelSpec]:
    from .registry import zoo_folder

    return [ModelSpec.from_folder(path.parent) for path in sorted(zoo_folder().glob("*/spec.json"))]


# === Front matter ===


def _front_matter(spec: ModelSpec) -> list[str]:
    """What the Hub searches and shows. Strings are quoted as JSON, which YAML reads."""
    lines = ["---", "library_name: keras", *_license(spec.license), "pipeline_tag: audio-classification"]
    lines += ["tags:", "- music", "- music-tagging", "- keras_musictag"]
    # The Hub takes the names of its own data sets only.
    hosted = dict.fromkeys(
        data.url.removeprefix(_HUB_DATASETS) for data in spec.training_data if data.url.startswith(_HUB_DATASETS)
    )
    lines += ["datasets:", *(f"- {json.dumps(name)}" for name in hosted)] if hosted else []
    return [*lines, *_model_index(spec), "---"]


def _license(license: str) -> list[str]:
    if not license:
        return []
    if license.lower() in _HUB_LICENSES:
        return [f"license: {license.lower()}"]
    name = re.sub(r"[^a-z0-9.+-]+", "-", license.lower()).strip("-")
    link = f"https://spdx.org/licenses/{license}.html" if re.fullmatch(r"[\w.+-]+", license) else ""
    return ["license: other", f"license_name: {json.dumps(name)}", *([f"license_link: {link}"] if link else [])]


def _model_index(spec: ModelSpec) -> list[str]:
    """Scores in the form of https://github.com/huggingface/hub-docs/blob/main/modelcard.md."""
    lines = []
    for metric in spec.metrics:
        scores = [key for key in SCORES if metric.get(key) is not None]
        if not scores:
            continue
        dataset = str(metric["dataset"])
        lines += [
            "  - task:",
            "      type: audio-classification",
            "      name: Music tagging",
            "    dataset:",
            f"      type: {json.dumps(re.sub('[^a-z0-9]+', '-', dataset.lower()).strip('-') or 'other')}",
            f"      name: {json.dumps(dataset, ensure_ascii=False)}",
            f"      split: {json.dumps(metric['split'], ensure_ascii=False)}",
            "      args:",
            f"        n: {metric['n']}",
            "    metrics:",
        ]
        for key in scores:
            title = json.dumps(_SCORE_NAMES[key] + ("" if key == "accuracy" else ", mean over tags"))
            lines += [f"    - type: {key}", f"      value: {metric[key]}", f"      name: {title}"]
        if metric.get("url"):
            source = json.dumps(metric["source"], ensure_ascii=False)
            lines += ["    source:", f"      name: {source}", f"      url: {json.dumps(metric['url'])}"]
    return ["model-index:", f"- name: {json.dumps(spec.name)}", "  results:", *lines] if lines else []


# === Sections ===


def _summary(spec: ModelSpec) -> list[str]:
    claims, weights = spec.claims, spec.weights
    lines = [spec.description, ""] if spec.description else []
    if weights is None:
        lines += [f"There are no weights yet. {spec.weights_help}".strip(), ""]
    rows = [("architecture", f"`{spec.architecture}`")]
    if "parameters" in claims:
        trainable = claims.get("trainable_parameters")
        rows.append(("parameters", f"{claims['parameters']:,}" + (f" ({trainable:,} trainable)" if trainable else "")))
    if weights is not None:
        size = f", {weights.size / 1e6:.2f} MB" if weights.size else ""
        rows.append(("weight file", f"`{weights.uri}`{size}, sha256 `{weights.sha256}`"))
    rows.append(("licence of the weights", spec.license or ("not stated" if weights else "no weights yet")))
    if spec.paper:
        rows.append(("paper", spec.paper))
    return lines + _table(("", ""), rows)


def _use(spec: ModelSpec, name: str) -> list[str]:
    lines = [spec.intended_use or "Intended use: not stated."]
    if spec.weights is None:
        return lines
    example = f'keras_musictag.load("{name}").tag("song.mp3", top=5)'
    return [*lines, "", "```python", "import keras_musictag", "", example, "```"]


def _input(spec: ModelSpec) -> list[str]:
    mel = spec.mel
    scaling = {"db": "dB", "log10": f"log10(1 + {mel.gain:g} x power)", None: "power"}[mel.scaling]
    short = {"repeat": "repeated until they fill one", "pad": "padded with silence"}[spec.window.short]
    return [
        f"Any sound file; it is mixed to mono and resampled. {mel.n_mels} mels x {spec.window.frames} frames, "
        f"{spec.audio.sr} Hz, n_fft {mel.n_fft}, hop {mel.hop_length}, {scaling}; windows of "
        f"{spec.window_seconds:.2f} s, over which probabilities are averaged. Shorter sounds are {short}."
    ]


def _training(spec: ModelSpec) -> list[str]:
    if spec.weights is None and spec.training_data:
        lines = ["There are no weights yet. They are to be made from:"]
    else:
        missing = "Training data: not stated." if spec.weights else "There are no weights yet."
        lines = [f"{spec.trained_on.rstrip('.')}." if spec.trained_on else missing]
    if not spec.training_data:
        return lines
    rows = [
        (
            f"[{data.name}]({data.url})" if data.url else data.name,
            _ROLES[data.role],
            "" if data.n is None else f"{data.n:,}",
            data.licence,
            data.note,
        )
        for data in spec.training_data
    ]
    return [*lines, "", *_table(("name", "role", "recordings", "licence", "note"), rows)]


def _evaluation(spec: ModelSpec) -> list[str]:
    if not spec.metrics:
        return ["Not measured."]
    columns = {key: [_cell(metric, key) for metric in spec.metrics] for key in _METRIC_COLUMNS}
    filled = {key: column for key, column in columns.items() if any(column)}
    lines = _table([_METRIC_COLUMNS[key] for key in filled], zip(*filled.values(), strict=True))
    notes = []
    if any("[" in cell for key in SCORES for cell in columns[key]):
        notes.append("In brackets: 95 % intervals, bootstrapped by group (artist or track), not by clip.")
    if any(columns["correlation"] + columns["teacher_roc_auc"]):
        notes.append(
            "Agreement with a teacher is no accuracy: where the teacher is wrong, so is the student. The teacher's top "
            "tenth are the clips, tag by tag, that the teacher scores highest."
        )
    for metric, key in itertools.product(spec.metrics, ("roc_auc", "pr_auc")):
        if per_tag := metric.get(f"{key}_per_tag"):
            scores = ", ".join(f"{tag} {_number(score)}" for tag, score in per_tag.items())
            notes.append(f"{_SCORE_NAMES[key]} per tag ({metric['dataset']}, {metric['split']}): {scores}.")
    return [*lines, *(line for note in notes for line in ("", note))]


def _latency(spec: ModelSpec) -> list[str]:
    if not spec.latency:
        return ["Not measured."]

    def setting(entry: Latency) -> tuple[Any, ...]:
        return entry.machine, entry.threads, entry.backend, entry.date, entry.repetitions, entry.command

    lines = [f"Of one call, from {spec.window_seconds:.2f} s of sound per item of the batch to tags."]
    for (machine, threads, backend, date, repetitions, command), entries in itertools.groupby(spec.latency, setting):
        rows = [
            (_SCOPES[entry.scope], entry.batch, *(f"{ms:.2f}" for ms in (entry.median_ms, entry.p10_ms, entry.p90_ms)))
            for entry in entries
        ]
        lines += ["", *_table(("from", "batch", "median ms", "10th percentile", "90th percentile"), rows), ""]
        plural = "s" if threads > 1 else ""
        lines.append(f"{machine}, {threads} thread{plural}, {backend}, {repetitions} calls, {date}: `{command}`")
    return lines


def _limits(spec: ModelSpec) -> list[str]:
    to_come = ["Of the weights to come:", ""] if spec.weights is None and spec.limits else []
    return to_come + ([f"- {limit}" for limit in spec.limits] or ["Not stated."])


# === Tables ===


def _table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table; cells stay on one line and keep their pipes."""

    def line(cells: Iterable[object]) -> str:
        texts = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
        return "| " + " | ".join(texts) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]


def _cell(metric: Mapping[str, Any], key: str) -> str:
    value = metric.get(key)
    if value is None:
        return ""
    if key in SCORES:
        low, high = metric.get(f"{key}_low"), metric.get(f"{key}_high")
        return _number(value) if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return f"[{value}]({metric['url']})" if key == "source" and metric.get("url") else str(value)


def _number(value: float) -> str:
    """Up to four decimals, without zeros at the end."""
    return f"{round(value, 4):g}"


if __name__ == "__main__":
    import sys

    sys.exit(main())
