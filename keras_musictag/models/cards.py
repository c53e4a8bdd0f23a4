"""Model cards: the README.md of a zoo entry, a saved tagger or a Hub repository, generated from its spec.

Only what the spec knows is said, and what it does not know is said to be missing. The command
`python -m keras_musictag.models.cards` writes the cards of the zoo and fails if a model that has weights leaves a field
empty.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..audio.demo import SECTIONS
from ..utils.tables import Table
from .card_input import highest_frequency, preprocessing
from .card_metadata import SCORE_NAMES, front_matter, license_address
from .facts import SCORES, Latency
from .spec import SPEC_FILE, ModelSpec

_NEEDED = (
    "description", "intended_use", "training_data", "trained_on", "license", "metrics", "latency", "limits", "citation",
)  # fmt: skip

_METRIC_COLUMNS = {"dataset": "data set", "split": "split", "n": "n", **SCORE_NAMES}
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
        'library_name: keras_musictag'
        >>> [line[3:] for line in card.splitlines() if line.startswith("## ")][:5]
        ['Use', 'Example', 'Tags', 'Intended use', 'Limits']
    """
    sections = {
        "Use": _use(spec, name or spec.name),
        "Example": _example(spec),
        "Tags": [f"{len(spec.tags)}, in the order of the outputs: {', '.join(spec.vocabulary.names)}."],
        "Intended use": [spec.intended_use or "Not stated."],
        "Limits": _limits(spec),
        "Evaluation": _evaluation(spec),
        "Training data and licences": _training(spec),
        "Input": _input(spec),
        "Latency": _latency(spec),
        "Cite": _cite(spec),
        "Licence": _licence(spec),
    }
    lines = [*front_matter(spec), "", f"# {spec.name}", "", *_summary(spec)]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body] if body else []
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
    """Change what the zoo says of a model: its spec, and the card with it.

    Args:
        name: of the zoo entry.
        changes: fields, as in `dataclasses.replace`.

    Raises:
        SpecError: there is no such entry, or the changes do not make a valid spec.
        CacheError: the zoo cannot be written.
    """
    from ..utils.files import write_atomically
    from .registry import zoo_folder

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


# === Sections ===


def _summary(spec: ModelSpec) -> list[str]:
    claims, weights = spec.claims, spec.weights
    lines = [f"{spec.description} {_answer(spec)}".strip(), ""]
    if weights is None:
        lines += [f"There are no weights yet. {spec.weights_help}".strip(), ""]
    rows = [("architecture", f"`{spec.architecture}`")]
    if "parameters" in claims:
        trainable = claims.get("trainable_parameters")
        rows.append(("parameters", f"{claims['parameters']:,}" + (f" ({trainable:,} trainable)" if trainable else "")))
    if weights is not None:
        size = f", {weights.size / 1e6:.2f} MB" if weights.size else ""
        file = f"`{weights.uri.rsplit('/', 1)[-1]}`"
        file = f"[{file}]({weights.uri})" if weights.uri.startswith("https://") else file
        rows.append(("weight file", f"{file}{size}, sha256 `{weights.sha256}`"))
    rows.append(("licence of the weights", _license(spec)))
    if spec.paper:
        rows.append(("paper", spec.paper))
    return lines + _table(("", ""), rows)


def _answer(spec: ModelSpec) -> str:
    """What one gets, in a sentence."""
    count = len(spec.tags)
    some = ", ".join(spec.vocabulary.names[:5]) + (f" and {count - 5} more" if count > 5 else "")
    if spec.config.get("classifier_activation") == "softmax":
        return f"Give it a sound file, and it chooses among {count} tags, with probabilities that add up to 1: {some}."
    return f"Give it a sound file, and it gives each of {count} tags a probability: {some}."


def _use(spec: ModelSpec, name: str) -> list[str]:
    if spec.weights is None:
        return ["Nothing can be loaded yet."]
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
        "Also `tagger.taggram` (tags over time), `tagger.embed` (features), `tagger.fine_tune` (tags of your own) and "
        "`tagger.export` (ONNX, LiteRT, OpenVINO). In a shell: "
        f"`keras-musictag tag song.mp3 --model {shlex.quote(name)}`.",
    ]


def _example(spec: ModelSpec) -> list[str]:
    if not spec.example:
        return []
    first = SECTIONS[0]
    answer = ", ".join(f"{json.dumps(tag, ensure_ascii=False)}: {value:.3f}" for tag, value in spec.example.items())
    return [
        f"The first {first.duration:g} s of the clip that comes with the package, {first.name}:",
        "",
        "```python",
        f"tagger.tag(keras_musictag.demo_clip(), duration={first.duration:g}, top={len(spec.example)})",
        f"# {{{answer}}}",
        "```",
    ]


def _input(spec: ModelSpec) -> list[str]:
    models = "`tagger.model` is a `keras.Model` from samples to probabilities, `tagger.core` one from log-mels."
    return [*_table(("", ""), preprocessing(spec)), "", f"`tag` does all of this. {models}"]


def _training(spec: ModelSpec) -> list[str]:
    if spec.weights is None and spec.training_data:
        lines = ["There are no weights yet. They are to be made from:"]
    else:
        missing = "Training data: not stated." if spec.weights else "There are no weights yet."
        lines = [f"Learned from: {spec.trained_on.rstrip('.')}." if spec.trained_on else missing]
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
    lines += ["", *(f"- {_measured(metric)}" for metric in spec.metrics)]
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
            notes.append(f"{SCORE_NAMES[key]} per tag ({metric['dataset']}, {metric['split']}): {scores}.")
    return [*lines, *(line for note in notes for line in ("", note))]


def _measured(metric: Mapping[str, Any]) -> str:
    """What there is to know of a score beside its value."""
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

    lines = [f"Of one call, from {spec.window_seconds:.2f} s of sound per item of the batch to tags."]
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
        head = ("from", "batch", "median ms", "10th percentile", "90th percentile", "times real time")
        plural = "s" if threads > 1 else ""
        lines += ["", *_table(head, rows), ""]
        lines.append(f"{machine}, {threads} thread{plural}, {backend}, {repetitions} calls, {date}: `{command}`")
    return lines


def _limits(spec: ModelSpec) -> list[str]:
    if spec.limits:
        to_come = ["Of the weights to come:", ""] if spec.weights is None else []
        return to_come + [f"- {limit}" for limit in spec.limits]
    return [
        "Not stated. By its construction:",
        "",
        f"- It has {len(spec.tags)} tags and no others; whatever it hears gets the nearest of them.",
        f"- It hears {spec.window_seconds:.2g} s at a time, and nothing above {highest_frequency(spec):,.0f} Hz.",
    ]


def _cite(spec: ModelSpec) -> list[str]:
    if spec.citation.startswith("@"):
        return ["```bibtex", spec.citation, "```"]
    return [spec.citation or "Not stated."]


def _licence(spec: ModelSpec) -> list[str]:
    return [
        f"The weights: {_license(spec)}. keras_musictag, which runs them: Apache-2.0. What they learned from has terms "
        "of its own: see [above](#training-data-and-licences)."
    ]


def _license(spec: ModelSpec) -> str:
    if not spec.license:
        return "not stated" if spec.weights else "no weights yet"
    address = license_address(spec.license)
    return f"[{spec.license}]({address})" if address else spec.license


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
    """Up to four decimals, without zeros at the end."""
    return f"{round(value, 4):g}"


if __name__ == "__main__":
    import sys

    sys.exit(main())
