"""Sources of weights: a file beside the spec, the Hugging Face Hub or a URL, with its sha256."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal, get_args

from ..errors import SpecError
from ..utils.fields import require, require_choice, require_count

WEIGHTS_FILE = "weights.safetensors"

_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names and revisions allowed on the Hub. No part begins with a dot, so none can leave its folder.
_HUB = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*)*))?")
_HTTPS = re.compile(r"https://[^/?#\s]+(?:/[^?#\s]*)?/(?P<file>\w[\w.+-]*)")
_FILE_NAME = re.compile(r"\w[\w.+-]*")

Format = Literal["safetensors", "h5", "pytorch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Location and sha256 of a weight file.

    Attributes:
        uri: one of `weights.safetensors` (a file beside `spec.json`: embedded in the package, a saved tagger, a Hub
            snapshot), `hf://org/repo@revision` (that repository's `weights.safetensors`), `https://...` (one file),
            or, in specs made in code, an absolute path.
        sha256: hexadecimal digest of the file, always required.
        format: `"safetensors"` (keyed by `variable.path`), or a format that is converted to it once: `"h5"` (Keras) or
            `"pytorch"` (`.pth`, `.pt`).
        size: size in bytes.
        mirrors: further addresses of the same file, tried in order if `uri` fails: `https://...`, or
            `hf://org/repo@revision` for the file `filename` of that repository.
        local_name: name of the file in caches and mirrors; by default the last part of `uri`.
        importer: registered function that maps a published file to the network's variables (`register_importer`); by
            default the one named like the architecture.
    """

    uri: str
    sha256: str
    format: Format = "safetensors"
    size: int | None = None
    mirrors: tuple[str, ...] = ()
    local_name: str = ""
    importer: str = ""

    def __post_init__(self) -> None:
        """Validate the fields: sources must be pinned and stay inside their folder."""
        require(
            bool(self.uri) and isinstance(self.uri, str), f"weights.uri must be a non-empty string; got {self.uri!r}."
        )
        require(
            isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256) is not None,
            f"weights.sha256 must be 64 lower-case hexadecimal digits; got {self.sha256!r}.",
        )
        if str(self.format) == "musicnn_h5":  # name in early specs
            object.__setattr__(self, "format", "h5")
        require_choice("weights.format", self.format, get_args(Format))
        if self.size is not None:
            require_count("weights.size", self.size)
        require(
            isinstance(self.mirrors, (list, tuple)),
            f"weights.mirrors must be a list of addresses; got {self.mirrors!r}.",
        )
        object.__setattr__(self, "mirrors", tuple(self.mirrors))  # a list in JSON
        for field, name in (("local_name", self.local_name), ("importer", self.importer)):
            require(
                isinstance(name, str) and (not name or _FILE_NAME.fullmatch(name) is not None),
                f"weights.{field} must consist of letters, digits, '.', '_', '+' and '-'; got {name!r}.",
            )
        if self.kind == "file":
            path = Path(self.uri)
            require(
                path.is_absolute() or (path.name == self.uri and self.uri not in (".", "..")),
                f"weights.uri {self.uri!r} must be a plain file name beside spec.json, without folders.",
            )
            require(
                not self.mirrors, f"weights.mirrors need a weights.uri that is downloaded; got {list(self.mirrors)!r}."
            )
        else:
            _check_address("weights.uri", self.uri)
        for address in self.mirrors:
            _check_address("weights.mirrors", address)

    @property
    def kind(self) -> Literal["file", "hub", "https"]:
        """Kind of `uri`."""
        return _kind(self.uri)

    @property
    def filename(self) -> str:
        """Name of the weight file, also in caches and mirrors."""
        if self.local_name:
            return self.local_name
        return WEIGHTS_FILE if self.kind == "hub" else self.uri.rsplit("/", 1)[-1]


def _kind(address: str) -> Literal["file", "hub", "https"]:
    if address.startswith("hf://"):
        return "hub"
    return "https" if address.startswith(("https://", "http://")) else "file"


def _check_address(field: str, address: object) -> None:
    require(isinstance(address, str), f"{field} must be text; got {address!r}.")
    assert isinstance(address, str)
    require(not address.startswith("http://"), f"{field} {address!r} must use https.")
    if _kind(address) == "hub":
        _, revision = parse_hub_uri(address)
        require(revision is not None, f"{field} {address!r} is not pinned: add the commit, hf://org/repo@<revision>.")
        return
    require(
        _HTTPS.fullmatch(address) is not None,
        f"{field} {address!r} must use https or hf:// and must end in a plain file name, without query or fragment.",
    )


def parse_hub_uri(uri: str) -> tuple[str, str | None]:
    """Split `hf://org/repo@revision` into `("org/repo", "revision" or None)`.

    Raises:
        SpecError: the address is malformed.

    Example:
        >>> parse_hub_uri("hf://someone/my-tagger@v1.0")
        ('someone/my-tagger', 'v1.0')
    """
    match = _HUB.fullmatch(uri)
    if match is None:
        raise SpecError(f"A Hub address must be hf://org/repo or hf://org/repo@revision; got {uri!r}.")
    return match["repo"], match["revision"]
