"""Files that somebody else keeps, in a folder or a bucket: they are looked at and read, never written."""

from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

__all__ = ["FileSystem", "files_at"]


def files_at(location: str) -> tuple[FileSystem, list[str], bool]:
    """Where a path or URL lies, the files there in order (none where nothing is), and whether it is a folder.

    Raises OSError, ArrowException for a place that cannot be looked at.
    """
    if "://" in location:
        system, root = FileSystem.from_uri(location)
    else:
        system, root = LocalFileSystem(), str(Path(location).expanduser())
    kind = system.get_file_info(root).type
    if kind != FileType.Directory:
        return system, [root] if kind != FileType.NotFound else [], False
    entries = system.get_file_info(FileSelector(root))
    return system, sorted(entry.path for entry in entries if entry.type == FileType.File), True
