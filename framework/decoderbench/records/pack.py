"""A pack: one file with a trained recognizer, for any machine on which decoderbench is installed. No torch here.

It is a ZIP archive of weights (safetensors), the charset, a model card, and a manifest (JSON) that says all the rest.
Reading it runs no code of the file, extracts nothing to the disk, and compares the size and sha256 of every part with
the manifest, which states its own. They find damage; they are no signature.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import Field, ValidationError

from decoderbench import __version__
from decoderbench.config.cell import Cell
from decoderbench.errors import DataError
from decoderbench.exception_text import describe_error
from decoderbench.files.integrity import DIGEST, Artifact, DamagedError, has_own_digest, parse, seal
from decoderbench.files.storage import write_atomically
from decoderbench.options import Options
from decoderbench.records.schema import unpack_flags
from decoderbench.scalars import Count, Number

FORMAT = 1
"""Version of the manifest."""

MANIFEST, WEIGHTS, CHARSET, CARD = "manifest.json", "weights.safetensors", "charset.txt", "README.md"
PARTS = (WEIGHTS, CHARSET, CARD)

MAX_MANIFEST = 2**26
"""Bytes that no manifest has; a larger one is not read."""

_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of every part, so that equal packs are equal files."""


class PackedComponent(Options):
    """A component that a recognizer needs, and what offered it when it was packed."""

    kind: str
    use: str
    origin: str
    """The distribution and its version, or the file of a plugin, as in "decoderbench-transformer 0.3"."""


class Manifest(Options):
    """What a pack says of its recognizer."""

    format: int = FORMAT
    decoderbench: str = __version__
    """The version that wrote the pack."""

    cell: Cell
    """Components, options, charset, sizes and normalization of images and labels, seed."""

    components: tuple[PackedComponent, ...] = ()
    experiment: str = ""
    """The name of the experiment that trained it."""

    metrics: dict[str, Number | None] = Field(default_factory=dict)
    """On the test split, as in the record of the cell."""

    num_test: Count | None = None
    validation_log_prob: tuple[float, ...] = ()
    """log p of the text of each validation image, from which the confidence is calibrated. Of a model that is trained
    on all images: of each image, as the model of its fold read it that was not trained on it."""

    validation_right: str = ""
    """Whether each of these texts is right, as `records.pack_flags` writes it."""

    environment: dict[str, str] = Field(default_factory=dict)
    """Date, versions, machine and commit of its training."""

    files: dict[str, Artifact] = Field(default_factory=dict)
    """Size and sha256 of every other part."""

    @property
    def digest(self) -> str:
        """Digest of what decides a start: weights, charset, and the identity of the cell, which new options keep."""
        parts = [self.files[name].sha256 for name in (WEIGHTS, CHARSET)]
        return sha256(" ".join([self.cell.cell_id, *parts]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Pack:
    """What a pack holds.

    Attributes:
        manifest: see there.
        weights: the bytes of a safetensors file.
        card: the model card, Markdown.
    """

    manifest: Manifest
    weights: bytes
    card: str


def write_pack(path: Path, pack: Pack) -> None:
    """Write a pack; the sizes and digests in its manifest are set here.

    Raises:
        StorageError: it cannot be written; a file that was there before is unchanged.
    """
    parts: Mapping[str, bytes] = {
        WEIGHTS: pack.weights,
        CHARSET: pack.manifest.cell.labels.charset.encode(),
        CARD: pack.card.encode(),
    }
    files = {name: Artifact(size=len(part), sha256=sha256(part).hexdigest()) for name, part in parts.items()}
    manifest = pack.manifest.model_copy(update={"files": files})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, part in {MANIFEST: seal(json.loads(manifest.model_dump_json())), **parts}.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), part)
    write_atomically(path, buffer.getvalue())


def is_pack(path: Path) -> bool:
    """Return whether a path is a file, which `read_pack` then reads or refuses, rather than a folder of results."""
    return path.is_file()


def damage_of_copy(file: Path) -> DamagedError | None:
    """Return the damage of a pack's copy in results, whose name is the digest of the pack; None if it is whole."""
    try:
        whole = read_pack(file).manifest.digest == file.stem
    except DataError as error:
        return error if isinstance(error, DamagedError) else DamagedError(file, "it is no pack that can be read")
    return None if whole else DamagedError(file, "it is another pack than its name says")


def read_pack(path: Path) -> Pack:
    """Read a pack.

    Raises:
        DataError: it is none, was written by a newer version, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _read_manifest(path, archive)
            parts = {name: _read_part(path, archive, name, manifest.files.get(name)) for name in PARTS}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, struct.error) as error:
        what = describe_error(error) if isinstance(error, EOFError) else str(error)
        raise DataError(f"{path}: is no pack, or damaged: {what}; write it again with decoderbench pack") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if parts[CHARSET] != manifest.cell.labels.charset.encode():
        raise DamagedError(path, f"{CHARSET} is not the charset of the manifest")
    return Pack(manifest, parts[WEIGHTS], parts[CARD].decode(errors="replace"))


def _read_manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    names = [entry.filename for entry in archive.infolist()]
    if MANIFEST not in names:
        raise DataError(f"{path}: is no pack of decoderbench: it has no {MANIFEST}; decoderbench pack writes one")
    if sorted(names) != sorted((MANIFEST, *PARTS)):
        raise DamagedError(path, f"its parts are {', '.join(names)}, not {', '.join((MANIFEST, *PARTS))}")
    content = _read(path, archive, MANIFEST, MAX_MANIFEST)
    data = parse(path, content)
    if data.get("format") != FORMAT:
        written = f"of format {data.get('format')!r:.40}, written by decoderbench {data.get('decoderbench')!r:.40}"
        raise DataError(f"{path}: is a pack {written}; {__version__} reads format {FORMAT}; install that version")
    if not has_own_digest(content):
        raise DamagedError(path, f"{MANIFEST}: sha256 mismatch")
    data.pop(DIGEST)
    try:
        manifest = Manifest.model_validate_json(json.dumps(data))
        unpack_flags(manifest.validation_right, len(manifest.validation_log_prob))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise DamagedError(path, f"{MANIFEST}: {place}: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise DamagedError(path, f"{MANIFEST}: validation_right: {error}") from None
    return manifest


def _read_part(path: Path, archive: zipfile.ZipFile, name: str, artifact: Artifact | None) -> bytes:
    if artifact is None:
        raise DamagedError(path, f"{MANIFEST} does not say what {name} is")
    content = _read(path, archive, name, artifact.size)
    if len(content) != artifact.size or sha256(content).hexdigest() != artifact.sha256:
        raise DamagedError(path, f"{name}: sha256 mismatch")
    return content


def _read(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a part; one that is compressed is refused, so that none is larger in memory than on the disk."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > limit:
        raise DamagedError(path, f"{name}: is compressed, or larger than its manifest says")
    return archive.read(entry)
