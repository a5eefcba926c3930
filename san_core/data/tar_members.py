"""The headers of a .tar, read strictly.

`tarfile` takes a damaged or truncated header for the end of the archive and silently loses what
follows. It also reads a long name of any size that a header claims.
"""

import itertools
import tarfile
from collections.abc import Iterator
from tarfile import BLOCKSIZE, EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import BinaryIO, Self

MOST_MEMBERS = 5_000_000
MOST_HEADER_BYTES = 1 << 20  # of the data after a header's 512 bytes, such as a long name
_CHUNK = 1 << 20  # of the data after the end mark, read at once
_LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


def tar_members(file: BinaryIO, place: str) -> Iterator[tarfile.TarInfo]:
    """The members of a .tar, one by one.

    Args:
        file: the archive, not compressed.
        place: how errors call it.

    Raises:
        ValueError: it is not a whole .tar, or holds more files than anybody has.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
            yield from _members(tar)
            _check_nothing_behind(file, tar.offset)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(f"{place} is not a whole .tar: {error}") from error
    except RecursionError:
        raise ValueError(f"{place} is not a whole .tar: headers without their files") from None


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count in itertools.count(1):
        if (member := tar.next()) is None:
            return
        if count > MOST_MEMBERS:
            raise tarfile.ReadError(f"it holds more than {MOST_MEMBERS:,} files")
        if member.size < 0:
            raise tarfile.ReadError(f"{member.name} has {member.size} bytes by its header")
        tar.members.clear()  # type: ignore[attr-defined]  # nobody asks for them again
        yield member


class _Header(tarfile.TarInfo):
    """A whole header, or the end mark."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """The next header.

        Raises:
            EOFHeaderError: the end mark is reached.
            ReadError: there is neither.
        """
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            raise ReadError(f"{error} at byte {tarfile.offset:,}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header in 512 bytes, unless it is cut off or has too many more."""
        if not buf:
            raise ReadError(
                "it ends after a whole file but has no end mark, so files may be missing; if none "
                "is, unpack it and pack it again"
            )
        if len(buf) < BLOCKSIZE:
            raise ReadError("it ends within a header, so its copy is incomplete")
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and not 0 <= header.size <= MOST_HEADER_BYTES:
            raise ReadError(f"a header claims {header.size:,} more bytes")
        return header


def _check_nothing_behind(file: BinaryIO, end: int) -> None:
    """Raise ValueError if a header follows the end mark, where other programs stop reading.

    Any number of zeros may fill up a record, and old programs fill it with arbitrary bytes.
    """
    file.seek(end)
    for start in itertools.count(end, _CHUNK):
        if not (chunk := file.read(_CHUNK)):
            return
        if not chunk.strip(b"\0"):
            continue
        for place in range(0, len(chunk), BLOCKSIZE):
            if _is_header(chunk[place : place + BLOCKSIZE]):
                raise ValueError(
                    f"more data follow its end mark at byte {start + place:,}: the file holds "
                    "several archives; unpack them with tar --ignore-zeros"
                )


def _is_header(block: bytes) -> bool:
    """Whether a block is the header of a file."""
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except HeaderError:
        return False
    return True
