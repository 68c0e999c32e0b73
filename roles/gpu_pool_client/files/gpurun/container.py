# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job's container: which image, and the command line that runs it on the server."""

from __future__ import annotations

import difflib
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import ImageError, RefusedError
from .settings import Settings

# The Singularity Image Format: a header, of which the magic word, the number of descriptors and their place are read,
# then descriptors, of which kind and use are read.
SIF_HEADER = struct.Struct("<32x10s22x16x8xqq24x")
SIF_DESCRIPTOR = struct.Struct("<i?580x")
SIF_MAGIC = b"SIF_MAGIC\0"
SIF_SIGNATURE = 0x4005
SIF_MOST = 4096


def find_image(name: str, settings: Settings) -> Path:
    """The image file of a path, or of a name (with or without .sif) in the site's image directories."""
    path = Path(name)
    if "/" in name or path.is_file():
        if path.is_file():
            return path.resolve()
        raise ImageError(f"no image {path}: {_alternatives(path.name, [str(path.parent)])}")
    for directory in settings.images:
        for candidate in (Path(directory) / name, Path(directory) / f"{name}.sif"):
            if candidate.is_file():
                return candidate.resolve()
    raise ImageError(f"no image {name}: {_alternatives(name, settings.images)}")


def _alternatives(name: str, directories: Sequence[str]) -> str:
    known = sorted({path.name for directory in directories for path in Path(directory).glob("*.sif")})
    where = ", ".join(directories) or "any image directory (none is configured)"
    if not known:
        return f"there is none in {where}; give a path, or ask for the image to be built"
    near = difflib.get_close_matches(name, known, n=3) or known[:5]
    return f"in {where} there is {', '.join(near)}"


def check_signature(image: Path, settings: Settings) -> None:
    """Raise ImageError for an image without a valid signature where the site requires one.

    A client without the container runtime only looks for a signature. Whose it is, and that it fits, is left to the
    server, whose execution control list refuses the image.
    """
    if not settings.require_signed:
        return
    if not shutil.which(settings.runtime):
        if not has_signature(image):
            raise ImageError(
                f"{image} is not signed, and this pool runs signed images only: use one of "
                f"{', '.join(settings.images) or 'the published images'}, or ask for this one to be signed"
            )
        return
    done = subprocess.run(  # noqa: S603 - the site's own container runtime
        [settings.runtime, "verify", str(image)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ImageError(
            f"{image} has no valid signature ({lines[-1].strip() if lines else 'verify failed'}), and this pool runs "
            f"signed images only: sign it with `{settings.runtime} sign`, or use one of "
            f"{', '.join(settings.images) or 'the published images'}"
        )


def has_signature(image: Path) -> bool:
    """Whether an image in the Singularity Image Format carries a signature; False for a file of another kind."""
    try:
        with image.open("rb") as stream:
            header = stream.read(SIF_HEADER.size)
            if len(header) < SIF_HEADER.size:
                return False
            magic, count, place = SIF_HEADER.unpack(header)
            if magic != SIF_MAGIC or not 0 < count <= SIF_MOST:
                return False
            stream.seek(place)
            table = stream.read(count * SIF_DESCRIPTOR.size)
    except OSError as error:
        raise ImageError(f"{image} cannot be read: {error.strerror}") from None
    whole = table[: len(table) - len(table) % SIF_DESCRIPTOR.size]
    return any(used and kind == SIF_SIGNATURE for kind, used in SIF_DESCRIPTOR.iter_unpack(whole))


def check_shared(directory: Path, settings: Settings) -> None:
    """Raise RefusedError for a directory that the servers cannot see."""
    if not any(directory == Path(top) or Path(top) in directory.parents for top in settings.shared):
        raise RefusedError(
            f"{directory} is not on shared storage, so the servers cannot see it: go to a directory under "
            f"{', '.join(settings.shared)}, or name one with --chdir"
        )


def command(image: Path, directory: Path, binds: Sequence[str], settings: Settings, *, gpu: bool) -> list[str]:
    """What runs on the server: the image with the shared directories, the current one as its own, and the GPU."""
    found = [settings.runtime, "exec"]
    if gpu:
        found.append("--nv")
    for bind in dict.fromkeys([*settings.shared, *settings.binds, *binds]):
        found += ["--bind", bind]
    return [*found, "--pwd", str(directory), str(image)]
