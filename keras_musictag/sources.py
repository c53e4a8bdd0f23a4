"""Where weights are: a file beside its spec, the Hugging Face Hub or a URL, and what the bytes hash to."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

from ._fields import require, require_choice, require_count
from .errors import SpecError

WEIGHTS_FILE = "weights.safetensors"

_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names and revisions as the Hub allows them: no part begins with a dot, so none can climb out of a folder.
_HUB = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*)*))?")
_HTTPS = re.compile(r"https://[^/?#\s]+(?:/[^?#\s]*)?/(?P<file>\w[\w.+-]*)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where a weight file is and what its bytes hash to.

    Attributes:
        uri: one of `weights.safetensors` (a file beside `spec.json`: embedded in the package, a saved tagger, a Hub
            snapshot), `hf://org/repo@revision` (that repository's `weights.safetensors`), `https://...` (one file),
            or, in specs made in code only, an absolute path.
        sha256: hexadecimal digest of the file. Always required: a source without one cannot be trusted.
        format: `"safetensors"` (keyed by `variable.path`) or the published `"musicnn_h5"`.
        size: bytes, for the progress bar and for people.
    """

    uri: str
    sha256: str
    format: Literal["safetensors", "musicnn_h5"] = "safetensors"
    size: int | None = None

    def __post_init__(self) -> None:
        """Reject sources that are not pinned or reach outside their folder."""
        require(
            bool(self.uri) and isinstance(self.uri, str), f"weights.uri must be a non-empty string; got {self.uri!r}."
        )
        require(
            isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256) is not None,
            f"weights.sha256 must be 64 lower-case hexadecimal digits; got {self.sha256!r}.",
        )
        require_choice("weights.format", self.format, ("safetensors", "musicnn_h5"))
        if self.size is not None:
            require_count("weights.size", self.size)
        if self.kind == "hub":
            _, revision = parse_hub_uri(self.uri)
            require(
                revision is not None,
                f"weights.uri {self.uri!r} is not pinned: add the commit, hf://org/repo@<revision>.",
            )
        if self.kind == "file":
            path = Path(self.uri)
            require(
                path.is_absolute() or (path.name == self.uri and self.uri not in (".", "..")),
                f"weights.uri {self.uri!r} must be a plain file name beside spec.json, without folders.",
            )
        require(not self.uri.startswith("http://"), f"weights.uri {self.uri!r} must use https.")
        if self.kind == "https":
            require(
                _HTTPS.fullmatch(self.uri) is not None,
                f"weights.uri {self.uri!r} must end in a plain file name, without query or fragment.",
            )

    @property
    def kind(self) -> Literal["file", "hub", "https"]:
        """Which door the bytes come through."""
        if self.uri.startswith("hf://"):
            return "hub"
        return "https" if self.uri.startswith(("https://", "http://")) else "file"

    @property
    def filename(self) -> str:
        """Name of the weight file, also in a mirror."""
        return WEIGHTS_FILE if self.kind == "hub" else self.uri.rsplit("/", 1)[-1]


def parse_hub_uri(uri: str) -> tuple[str, str | None]:
    """Split `hf://org/repo@revision` into `("org/repo", "revision" or None)`.

    Raises:
        SpecError: the text is not of that form.

    Example:
        >>> parse_hub_uri("hf://someone/my-tagger@v1.0")
        ('someone/my-tagger', 'v1.0')
    """
    match = _HUB.fullmatch(uri)
    if match is None:
        raise SpecError(f"A Hub address looks like hf://org/repo or hf://org/repo@revision; got {uri!r}.")
    return match["repo"], match["revision"]
