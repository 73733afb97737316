"""Archives whose bytes depend on their members alone: sorted, undated, owned by nobody."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping

Members = Mapping[str, bytes]
"""Path in the archive -> content."""


def tar_gz(members: Members) -> bytes:
    """A gzip-compressed tar file."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for name in sorted(members):
            member = tarfile.TarInfo(name)
            member.size = len(members[name])
            archive.addfile(member, io.BytesIO(members[name]))
    return buffer.getvalue()


def zip_file(members: Members) -> bytes:
    """A zip file with deflated members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(member, members[name], compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def lines(rows: list[str]) -> bytes:
    """A text file of these lines."""
    return "".join(f"{row}\n" for row in rows).encode()
