"""The YAML at the head of a model card, which the Hugging Face Hub searches and shows.

Fields and their values: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import json
import re

from .facts import SCORES
from .spec import ModelSpec

# Names of scores in cards. The Hub's own list of metrics has those in `_HUB_METRICS`.
SCORE_NAMES = {
    "accuracy": "accuracy",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "correlation": "correlation with the teacher",
    "teacher_roc_auc": "ROC-AUC against the teacher's top tenth",
}
_HUB_METRICS = ("accuracy", "roc_auc")
# Licences that the Hub knows. Others are written as its `license: other`.
_HUB_LICENSES = (
    "apache-2.0", "mit", "isc", "bsd-2-clause", "bsd-3-clause", "unlicense", "cc0-1.0", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "mpl-2.0",
)  # fmt: skip
_HUB_DATASETS = "https://huggingface.co/datasets/"


def front_matter(spec: ModelSpec) -> list[str]:
    """Lines of YAML between two `---`. Strings are quoted as JSON, which YAML reads."""
    # As `library_name`, keras would have the Hub show how to load a .keras file, which is not in there.
    lines = ["---", "library_name: keras_musictag", *_license(spec.license), "pipeline_tag: audio-classification"]
    lines += ["tags:", *(f"- {tag}" for tag in ("audio", "keras", "keras_musictag", "music", "music-tagging"))]
    # The Hub takes the names of its own data sets only.
    hosted = dict.fromkeys(
        data.url.removeprefix(_HUB_DATASETS) for data in spec.training_data if data.url.startswith(_HUB_DATASETS)
    )
    lines += ["datasets:", *(f"- {json.dumps(name)}" for name in hosted)] if hosted else []
    scored = [key for key in _HUB_METRICS if any(metric.get(key) is not None for metric in spec.metrics)]
    lines += ["metrics:", *(f"- {key}" for key in scored)] if scored else []
    return [*lines, *_model_index(spec), "---"]


def license_address(license: str) -> str:
    """Where the text of a licence is; empty if it is no SPDX identifier."""
    return f"https://spdx.org/licenses/{license}.html" if re.fullmatch(r"[\w.+-]+", license) else ""


def _license(license: str) -> list[str]:
    if not license:
        return []
    if license.lower() in _HUB_LICENSES:
        return [f"license: {license.lower()}"]
    name = re.sub(r"[^a-z0-9.+-]+", "-", license.lower()).strip("-")
    link = license_address(license)
    return ["license: other", f"license_name: {json.dumps(name)}", *([f"license_link: {link}"] if link else [])]


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
