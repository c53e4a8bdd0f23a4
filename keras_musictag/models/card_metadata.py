"""YAML front matter of a model card, as the Hugging Face Hub reads it.

The fields are described in https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from .facts import SCORES
from .spec import ModelSpec

# Names of scores in cards.
SCORE_NAMES = {
    "accuracy": "accuracy",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "correlation": "correlation with the teacher",
    "teacher_roc_auc": "ROC-AUC against the teacher's top tenth",
}
_HUB_METRICS = ("accuracy", "roc_auc")  # those of https://huggingface.co/metrics
# Licences that the Hub knows; any other is written as `license: other`.
_HUB_LICENCES = (
    "apache-2.0", "mit", "isc", "bsd-2-clause", "bsd-3-clause", "unlicense", "cc0-1.0", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "mpl-2.0",
)  # fmt: skip
_HUB_DATASETS = "https://huggingface.co/datasets/"


def front_matter(spec: ModelSpec) -> list[str]:
    """Return the lines of the front matter. Strings are quoted as in JSON, which is valid YAML."""
    # With `library_name: keras`, the Hub would show how to load a .keras file, which the repository does not have.
    lines = ["---", "library_name: keras_musictag", *_licence_lines(spec.license), "pipeline_tag: audio-classification"]
    lines += _yaml_list("tags", ("audio", "keras", "keras_musictag", "music", "music-tagging"))
    # The Hub accepts only data sets that it hosts.
    hosted = dict.fromkeys(
        data.url.removeprefix(_HUB_DATASETS) for data in spec.training_data if data.url.startswith(_HUB_DATASETS)
    )
    lines += _yaml_list("datasets", map(json.dumps, hosted))
    lines += _yaml_list(
        "metrics", [key for key in _HUB_METRICS if any(metric.get(key) is not None for metric in spec.metrics)]
    )
    return [*lines, *_model_index(spec), "---"]


def _yaml_list(field: str, values: Iterable[str]) -> list[str]:
    """Return the lines of a list, none if it is empty."""
    items = [f"- {value}" for value in values]
    return [f"{field}:", *items] if items else []


def licence_url(licence: str) -> str:
    """Return the URL of the text of a licence; empty if it is not an SPDX identifier."""
    return f"https://spdx.org/licenses/{licence}.html" if re.fullmatch(r"[\w.+-]+", licence) else ""


def _licence_lines(licence: str) -> list[str]:
    """Return the Hub's fields for a licence, none if it is empty."""
    if not licence:
        return []
    if licence.lower() in _HUB_LICENCES:
        return [f"license: {licence.lower()}"]
    name = re.sub(r"[^a-z0-9.+-]+", "-", licence.lower()).strip("-")
    lines = ["license: other", f"license_name: {json.dumps(name)}"]
    if url := licence_url(licence):
        lines.append(f"license_link: {url}")
    return lines


def _model_index(spec: ModelSpec) -> list[str]:
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
            title = json.dumps(SCORE_NAMES[key] + ("" if key == "accuracy" else ", mean over tags"))
            lines += [f"    - type: {key}", f"      value: {metric[key]}", f"      name: {title}"]
        if metric.get("url"):
            source = json.dumps(metric["source"], ensure_ascii=False)
            lines += ["    source:", f"      name: {source}", f"      url: {json.dumps(metric['url'])}"]
    return ["model-index:", f"- name: {json.dumps(spec.name)}", "  results:", *lines] if lines else []
