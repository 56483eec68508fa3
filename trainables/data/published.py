"""Files that others published: found in a folder, or downloaded into it."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from trainables.checked_text import RelativePath
from trainables.data.dataset import DataUnavailable
from trainables.data.lock import locked

TIMEOUT_SECONDS = 30
PIECE = 2**20


@final
@dataclass(frozen=True, slots=True)
class Published:
    """One file by its name, its address (https) and the MD5 that its authors or their mirror give for it."""

    name: str
    url: str
    md5: str


def published_folder(root: Path, name: RelativePath) -> Path:
    """The folder of this name for published files in the data folder `root`.

    Raises:
        DataUnavailable: a link leads out of `root / "downloads"`.
    """
    try:
        return name.below(root / "downloads")
    except ValueError as error:
        raise DataUnavailable(f"data.folder: {error}") from error


def obtain(files: Sequence[Published], folder: Path) -> list[Path]:
    """The files in `folder`, downloaded if they are not there.

    A file that is there is taken as it is. A download is resumed where an earlier one stopped, has its name only when
    it is whole, and is refused when its checksum differs.

    Raises:
        DataUnavailable: a file is neither there nor to be had; the message names addresses and folder.
    """
    missing = [file for file in files if not (folder / file.name).exists()]
    if missing:
        try:
            with locked(folder / ".lock"):
                for file in missing:
                    if not (folder / file.name).exists():
                        download(file, folder)
        except (OSError, http.client.HTTPException) as error:
            wanted = ", ".join(file.url for file in missing)
            raise DataUnavailable(f"cannot download ({error}); put these files into {folder}: {wanted}") from error
    return [folder / file.name for file in files]


def download(file: Published, folder: Path) -> None:
    """Fetch a file into `folder`, continuing a part of it that is there.

    Raises:
        OSError: no connection, no such address, a broken connection, or no room.
        DataUnavailable: what arrived has another checksum.
    """
    part = folder / f"{file.name}.part"
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - our own constants
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        response = None  # the part is whole already, or longer than the file: its checksum will tell
    if response is not None:
        with response, part.open("ab" if response.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as out:
            while piece := response.read(PIECE):
                out.write(piece)
            left = response.length
        if left:
            raise OSError(f"{file.url} ended {left:,} bytes early")
    with part.open("rb") as data:
        found = hashlib.file_digest(data, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != file.md5:
        part.unlink()
        raise DataUnavailable(f"{file.url} has MD5 {found}, not {file.md5}: it was altered or cut short on its way")
    part.rename(folder / file.name)
