"""Model cards: the README.md of a zoo entry, a saved tagger or a Hub repository, generated from its spec."""

from __future__ import annotations

from .spec import ModelSpec


def model_card(spec: ModelSpec, name: str | None = None) -> str:
    """Markdown with the YAML front matter that the Hugging Face Hub reads.

    `name` is what `load` is called with in the example, `spec.name` unless told otherwise. Only what the spec knows is
    said; a figure without data set, split and n cannot get in (`ModelSpec` refuses it).

    Example:
        >>> import keras_musictag as kmt
        >>> model_card(kmt.model_info("musicnn_mtt")).splitlines()[1]
        'library_name: keras'
    """
    mel, audio = spec.mel, spec.audio
    tags = ", ".join(spec.tags)
    lines = [
        "---",
        "library_name: keras",
        *([f"license: {spec.license.lower()}"] if spec.license else []),
        "pipeline_tag: audio-classification",
        "tags:",
        "- music",
        "- music-tagging",
        "- keras_musictag",
        "---",
        "",
        f"# {spec.name}",
        "",
        *([spec.description, ""] if spec.description else []),
        "```python",
        "import keras_musictag",
        "",
        f'keras_musictag.load("{name or spec.name}").tag("song.mp3", top=5)',
        "```",
        "",
        "| | |",
        "| --- | --- |",
        f"| architecture | `{spec.architecture}` |",
        *_rows(spec),
        f"| input | {mel.n_mels} mels x {spec.window.frames} frames, {audio.sr} Hz, n_fft {mel.n_fft}, "
        f"hop {mel.hop_length}, {_scaling(spec)}; {spec.window_seconds:.2f} s |",
        f"| license of the weights | {spec.license or 'not stated'} |",
        f"| trained on | {spec.trained_on or ('not stated' if spec.weights else 'no weights yet')} |",
        *([f"| paper | {spec.paper} |"] if spec.paper else []),
        "",
        f"Tags ({len(spec.tags)}): {tags}.",
        "",
    ]
    if spec.weights is None:
        lines += [f"There are no weights yet. {spec.weights_help}".strip(), ""]
    if spec.metrics:
        lines += ["| data set | split | n | ROC-AUC | PR-AUC | source |", "| --- | --- | --- | --- | --- | --- |"]
        lines += [
            "| "
            + " | ".join(str(m.get(key, "")) for key in ("dataset", "split", "n", "roc_auc", "pr_auc", "source"))
            + " |"
            for m in spec.metrics
        ]
        lines.append("")
    return "\n".join(lines)


def _rows(spec: ModelSpec) -> list[str]:
    claims = spec.claims
    rows = []
    if "parameters" in claims:
        trainable = claims.get("trainable_parameters")
        rows.append(
            f"| parameters | {claims['parameters']:,}" + (f" ({trainable:,} trainable) |" if trainable else " |")
        )
    if spec.weights is not None and spec.weights.size:
        rows.append(
            f"| weight file | `{spec.weights.uri}`, {spec.weights.size / 1e6:.2f} MB, sha256 `{spec.weights.sha256}` |"
        )
    return rows


def _scaling(spec: ModelSpec) -> str:
    if spec.mel.scaling == "db":
        return "dB"
    return f"log10(1 + {spec.mel.gain:g} x power)" if spec.mel.scaling == "log10" else "power"


def write_cards() -> list[str]:
    """Write the card of every zoo entry beside its spec; returns the names of those that changed.

    Raises:
        CacheError: the zoo cannot be written.
    """
    from .registry import zoo_folder
    from .weights import write_atomically

    changed = []
    for path in sorted(zoo_folder().glob("*/spec.json")):
        spec = ModelSpec.from_folder(path.parent)
        card = path.with_name("README.md")
        text = model_card(spec)
        if not card.is_file() or card.read_text(encoding="utf-8") != text:
            write_atomically(card, text.encode())
            changed.append(spec.name)
    return changed


if __name__ == "__main__":
    import click

    click.echo(f"Cards written: {', '.join(write_cards()) or 'none, all are current'}.")
