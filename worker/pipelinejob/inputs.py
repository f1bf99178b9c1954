"""Reading a row's image below the data root, and nothing outside it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pipelinejob.reasons import RowFailure, RowReason
from pipelinejob.storage import naming

_NOT_FOUND = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.ENAMETOOLONG: "no such file: the name is too long",
    errno.EISDIR: "is a folder",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ELOOP: "too many symbolic links",
    errno.ENXIO: "is not a regular file",
}
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: a named pipe must not hang the row


class ImageReader:
    """Reads files below a data root; folders are resolved once each, links may not lead outside."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = os.path.realpath(root)
        self._max_bytes = max_bytes
        self._folders: dict[str, str | None] = {}

    def read(self, path: str) -> bytes:
        """The bytes of a file given by its path relative to the root.

        Raises:
            RowFailure: ImageNotFound (missing, a folder, no permission, outside the root) or ImageTooLarge.
            OSError: the storage itself fails; then nothing is known about the row.
        """
        if path.startswith(("http://", "https://")):
            raise _not_found(path, "addresses are not supported yet, only files below the data root")
        folder, name = os.path.split(path)
        try:
            descriptor = self._open(path, folder, name)
        except OSError as error:
            if error.errno not in _NOT_FOUND:
                raise
            raise _not_found(path, _NOT_FOUND[error.errno]) from None
        try:
            with naming(path):
                return self._read(descriptor, path)
        finally:
            os.close(descriptor)

    def _open(self, path: str, folder: str, name: str) -> int:
        real_folder = self._resolve_folder(folder)
        if real_folder is None or not name or name in (".", ".."):
            resolved = os.path.realpath(os.path.join(self._root, path))
            if real_folder is None or not self._inside(resolved):
                raise _not_found(path, "outside the data root")
            raise _not_found(path, _NOT_FOUND[errno.EISDIR])
        try:
            return os.open(f"{real_folder}/{name}", _FLAGS | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        target = os.path.realpath(f"{real_folder}/{name}", strict=True)  # a link: allowed while it stays inside
        if not self._inside(target):
            raise _not_found(path, "outside the data root")
        return os.open(target, _FLAGS | os.O_NOFOLLOW)

    def _resolve_folder(self, folder: str) -> str | None:
        if folder not in self._folders:
            try:
                real = os.path.realpath(os.path.join(self._root, folder), strict=True)
            except OSError as error:
                if error.errno not in _NOT_FOUND:
                    raise  # without it, a link that cannot be read at the moment would pass for a folder
                real = os.path.realpath(os.path.join(self._root, folder))
            if len(self._folders) > 10_000:
                self._folders.clear()
            # Judged by its text as well: what leads out and back in would depend on what the root is called.
            leads_out = folder.startswith("/") or os.path.normpath(folder).split("/", 1)[0] == ".."
            self._folders[folder] = real if not leads_out and self._inside(real) else None
        return self._folders[folder]

    def _inside(self, real: str) -> bool:
        return real == self._root or real.startswith(self._root.rstrip("/") + "/")

    def _read(self, descriptor: int, path: str) -> bytes:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise _not_found(path, _NOT_FOUND[errno.EISDIR])
        if not stat.S_ISREG(status.st_mode):
            raise _not_found(path, "is not a regular file")
        if status.st_size > self._max_bytes:
            message = f"{path}: {status.st_size} bytes, more than source.maxBytes {self._max_bytes}"
            raise RowFailure(RowReason.IMAGE_TOO_LARGE, message)
        data = os.read(descriptor, status.st_size + 1)
        if len(data) == status.st_size:
            return data
        pieces = [data]  # a short read, or a file that grows: to its end, within the limit
        while piece := os.read(descriptor, 1 << 20):
            pieces.append(piece)
            if sum(map(len, pieces)) > self._max_bytes:
                message = f"{path}: more than source.maxBytes {self._max_bytes} bytes"
                raise RowFailure(RowReason.IMAGE_TOO_LARGE, message)
        return b"".join(pieces)


def _not_found(path: str, why: str) -> RowFailure:
    return RowFailure(RowReason.IMAGE_NOT_FOUND, f"{path}: {why}")
