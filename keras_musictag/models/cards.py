"""Model cards: the README.md of a zoo entry, a saved tagger or a Hub repository, generated from its spec.

Fields that the spec leaves empty are shown as missing. The command `python -m keras_musictag.models.cards` writes the
cards of the zoo and fails if a model with weights has an empty field.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..audio.demo import SECTIONS
from ..utils.name_lists import join_names
from ..utils.tables import Table
from .card_input import highest_frequency, preprocessing
from .card_metadata import SCORE_NAMES, front_matter, licence_url
from .facts import SCORES, Latency
from .spec import SPEC_FILE, ModelSpec

_REQUIRED = (
    "description", "intended_use", "training_data", "trained_on", "license", "metrics", "latency", "limits", "citation",
)  # fmt: skip

_METRIC_COLUMNS = {"dataset": "data set", "split": "split", "n": "n", **SCORE_NAMES}
_ROLES = {
    "labelled": "audio and labels",
    "unlabelled": "audio, labelled by the teacher",
    "teacher": "teacher",
    "teacher_data": "training data of the teacher",
}
_SCOPES = {"log_mel": "log-mel", "waveform": "waveform in memory", "file": "file (44.1 kHz stereo FLAC)"}


# === Public ===


def model_card(spec: ModelSpec, name: str | None = None) -> str:
    """Return the model card of a spec: Markdown with the YAML front matter of the Hugging Face Hub.

    Args:
        spec: spec of the model.
        name: argument of `load` in the example; by default `spec.name`.

    Returns:
        Text of a README.md.

    Example:
        >>> import keras_musictag as kmt
        >>> card = model_card(kmt.model_info("musicnn_mtt"))
        >>> card.splitlines()[1]
        'library_name: keras_musictag'
        >>> [line[3:] for line in card.splitlines() if line.startswith("## ")][:5]
        ['Use', 'Example', 'Tags', 'Intended use', 'Limits']
    """
    sections = {
        "Use": _use(spec, name or spec.name),
        "Example": _example(spec),
        "Tags": [f"{len(spec.tags)} tags, in the order of the outputs: {join_names(spec.vocabulary.names)}."],
        "Intended use": [spec.intended_use or "Not stated."],
        "Limits": _limits(spec),
        "Evaluation": _evaluation(spec),
        "Training data and licences": _training(spec),
        "Input": _input(spec),
        "Latency": _latency(spec),
        "Cite": _cite(spec),
        "Licence": _licence_section(spec),
    }
    lines = [*front_matter(spec), "", f"# {spec.name}", "", *_summary(spec)]
    for title, body in sections.items():
        if body:
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def empty_fields(spec: ModelSpec) -> list[str]:
    """List the empty fields of a spec that a complete model card needs.

    Args:
        spec: spec of the model.

    Returns:
        Names of fields of `ModelSpec`; `"weights"` if there are none. Metrics without a score count as empty.

    Example:
        >>> import keras_musictag as kmt
        >>> empty_fields(kmt.model_info("musicnn_mtt").retrained())[:3]
        ['weights', 'description', 'intended_use']
    """
    empty = [] if spec.weights else ["weights"]
    for field in _REQUIRED:
        value = getattr(spec, field)
        if field == "metrics":
            value = [metric for metric in value if any(metric.get(score) is not None for score in SCORES)]
        if not (value.strip() if isinstance(value, str) else value):
            empty.append(field)
    if spec.weights and not spec.weights.size:
        empty.append("weights.size")
    return empty


def write_cards() -> list[str]:
    """Write the card of every zoo entry and return the names of the entries whose card changed.

    Raises:
        CacheError: the zoo cannot be written.
    """
    from ..utils.files import write_atomically

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
    """Change fields of a zoo entry's spec and update its card.

    Args:
        name: name of the zoo entry.
        changes: fields, as in `dataclasses.replace`.

    Raises:
        SpecError: there is no such entry, or the changed spec is invalid.
        CacheError: the zoo cannot be written.
    """
    from ..utils.files import write_atomically
    from .registry import zoo_folder

    folder = zoo_folder() / name
    spec = dataclasses.replace(ModelSpec.from_folder(folder), **changes)
    write_atomically(folder / SPEC_FILE, spec.to_json().encode())
    write_cards()


def main() -> int:
    """Write the cards of the zoo and report empty fields; returns 1 if a model with weights has any."""
    import click

    click.echo(f"Cards written: {', '.join(write_cards()) or 'none, all are current'}.")
    missing = {spec.name: empty_fields(spec) for spec in _zoo() if spec.weights}
    for name, fields in missing.items():
        if fields:
            click.echo(f"The spec.json of {name} has empty fields: {', '.join(fields)}.", err=True)
    return int(any(missing.values()))


def _zoo() -> list[ModelSpec]:
    from .registry import zoo_folder

    return [ModelSpec.from_folder(path.parent) for path in sorted(zoo_folder().glob("*/spec.json"))]


# === Sections ===


def _summary(spec: ModelSpec) -> list[str]:
    claims, weights = spec.claims, spec.weights
    lines = [f"{spec.description} {_output(spec)}".strip(), ""]
    if weights is None:
        lines += [f"There are no weights yet. {spec.weights_help}".strip(), ""]
    rows = [("architecture", f"`{spec.architecture}`")]
    if "parameters" in claims:
        parameters = f"{claims['parameters']:,}"
        if trainable := claims.get("trainable_parameters"):
            parameters += f" ({trainable:,} trainable)"
        rows.append(("parameters", parameters))
    if weights is not None:
        file = f"`{weights.uri.rsplit('/', 1)[-1]}`"
        if weights.uri.startswith("https://"):
            file = f"[{file}]({weights.uri})"
        size = f", {weights.size / 1e6:.2f} MB" if weights.size else ""
        rows.append(("weight file", f"{file}{size}, sha256 `{weights.sha256}`"))
    rows.append(("licence of the weights", _weights_licence(spec)))
    if spec.paper:
        rows.append(("paper", spec.paper))
    return lines + _table(("", ""), rows)


def _output(spec: ModelSpec) -> str:
    """Return a sentence on the output of the model."""
    count = len(spec.tags)
    tags = join_names(spec.vocabulary.names[:5])
    if count > 5:
        tags += f" and {count - 5} more"
    if spec.config.get("classifier_activation") == "softmax":
        return f"For an audio file, it returns the probabilities of {count} exclusive tags, which add up to 1: {tags}."
    return f"For an audio file, it returns the probability of each of {count} tags: {tags}."


def _use(spec: ModelSpec, name: str) -> list[str]:
    if spec.weights is None:
        return ["The model cannot be loaded yet."]
    return [
        "```bash",
        "pip install keras_musictag",
        "```",
        "",
        "```python",
        "import keras_musictag",
        "",
        f"tagger = keras_musictag.load({json.dumps(name, ensure_ascii=False)})",
        'tagger.tag("song.mp3", top=5)',
        "```",
        "",
        "See also `tagger.taggram` (tags over time), `tagger.embed` (features), `tagger.fine_tune` (training on your "
        "own tags) and `tagger.export` (ONNX, LiteRT, OpenVINO). On the command line: "
        f"`keras-musictag tag song.mp3 --model {shlex.quote(name)}`.",
    ]


def _example(spec: ModelSpec) -> list[str]:
    if not spec.example:
        return []
    first = SECTIONS[0]
    result = ", ".join(f"{json.dumps(tag, ensure_ascii=False)}: {value:.3f}" for tag, value in spec.example.items())
    return [
        f"Tags of the first {first.duration:g} s of the demo clip of the package, {first.name}:",
        "",
        "```python",
        f"tagger.tag(keras_musictag.demo_clip(), duration={first.duration:g}, top={len(spec.example)})",
        f"# {{{result}}}",
        "```",
    ]


def _input(spec: ModelSpec) -> list[str]:
    note = (
        "`tag` reads a file or array and applies all of these steps. `tagger.model` is a `keras.Model` from waveforms "
        "to probabilities; `tagger.core` maps log-mel spectrograms to probabilities."
    )
    return [*_table(("", ""), preprocessing(spec)), "", note]


def _training(spec: ModelSpec) -> list[str]:
    if spec.weights is None and spec.training_data:
        lines = ["There are no weights yet. They will be trained on:"]
    elif spec.trained_on:
        lines = [f"Trained on: {spec.trained_on.rstrip('.')}."]
    else:
        lines = ["Training data: not stated." if spec.weights else "There are no weights yet."]
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
    lines += ["", *(f"- {_provenance(metric)}" for metric in spec.metrics)]
    if any("[" in cell for key in SCORES for cell in columns[key]):
        lines += ["", "Brackets give 95 % intervals from a bootstrap over groups (artists or tracks)."]
    if any(columns["correlation"] + columns["teacher_roc_auc"]):
        lines += [
            "",
            "Correlation with the teacher and ROC-AUC against its top tenth measure agreement with the teacher's "
            "predictions, which may be wrong. The top tenth of a tag are the clips that the teacher scores highest.",
        ]
    for metric, key in itertools.product(spec.metrics, ("roc_auc", "pr_auc")):
        if per_tag := metric.get(f"{key}_per_tag"):
            scores = ", ".join(f"{tag} {_number(score)}" for tag, score in per_tag.items())
            lines += ["", f"{SCORE_NAMES[key]} per tag ({metric['dataset']}, {metric['split']}): {scores}."]
    return lines


def _provenance(metric: Mapping[str, Any]) -> str:
    """Return data set, note, source, machine and date of a score."""
    source, url = str(metric["source"]), metric.get("url")
    if url:
        source = f"[{source}]({url})"
    elif source.startswith("python "):
        source = f"`{source}`"
    where = ", ".join([source, *(str(metric[key]) for key in ("machine", "date") if metric.get(key))])
    note = f" {str(metric['note']).rstrip('.')}." if metric.get("note") else ""
    return f"**{metric['dataset']}, {metric['split']}.**{note} Source: {where}."


def _latency(spec: ModelSpec) -> list[str]:
    if not spec.latency:
        return ["Not measured."]

    def setting(entry: Latency) -> tuple[Any, ...]:
        return entry.machine, entry.threads, entry.backend, entry.date, entry.repetitions, entry.command

    lines = [f"Time of one call from input to tags, for {spec.window_seconds:.2f} s of audio per batch item."]
    for (machine, threads, backend, date, repetitions, command), entries in itertools.groupby(spec.latency, setting):
        rows = [
            (
                _SCOPES[entry.scope],
                entry.batch,
                *(f"{ms:.2f}" for ms in (entry.median_ms, entry.p10_ms, entry.p90_ms)),
                f"{1000 * entry.batch * spec.window_seconds / entry.median_ms:,.0f}",
            )
            for entry in entries
        ]
        head = ("input", "batch", "median ms", "10th percentile", "90th percentile", "times real time")
        plural = "s" if threads > 1 else ""
        lines += ["", *_table(head, rows), ""]
        lines.append(f"{machine}, {threads} thread{plural}, {backend}, {repetitions} calls, {date}: `{command}`")
    return lines


def _limits(spec: ModelSpec) -> list[str]:
    if spec.limits:
        limits = [f"- {limit}" for limit in spec.limits]
        return limits if spec.weights else ["Expected limits of the weights:", "", *limits]
    return [
        "Not stated. From the spec:",
        "",
        f"- It predicts {len(spec.tags)} tags only.",
        f"- It uses windows of {spec.window_seconds:.2g} s and frequencies up to {highest_frequency(spec):,.0f} Hz.",
    ]


def _cite(spec: ModelSpec) -> list[str]:
    if spec.citation.startswith("@"):
        return ["```bibtex", spec.citation, "```"]
    return [spec.citation or "Not stated."]


def _licence_section(spec: ModelSpec) -> list[str]:
    return [
        f"Weights: {_weights_licence(spec)}. Code (keras_musictag): Apache-2.0. The training data have their own "
        "terms; see [above](#training-data-and-licences)."
    ]


def _weights_licence(spec: ModelSpec) -> str:
    if not spec.license:
        return "not stated" if spec.weights else "no weights yet"
    url = licence_url(spec.license)
    return f"[{spec.license}]({url})" if url else spec.license


# === Tables ===


def _table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    return [Table(head, [tuple(row) for row in rows]).markdown()]


def _cell(metric: Mapping[str, Any], key: str) -> str:
    value = metric.get(key)
    if value is None:
        return ""
    if key in SCORES:
        low, high = metric.get(f"{key}_low"), metric.get(f"{key}_high")
        return _number(value) if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return f"{value:,}" if key == "n" else str(value)


def _number(value: float) -> str:
    """Format a number with up to four decimals and no trailing zeros."""
    return f"{round(value, 4):g}"


if __name__ == "__main__":
    import sys

    sys.exit(main())
