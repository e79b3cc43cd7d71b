"""File trees in feeds: attributes, content, nested drives, versions, and copying trees in and out."""

from ddrive.drive.address import KeyRef, format_url, parse_key
from ddrive.drive.drive import Drive, DriveFeeds, Info, open_drive
from ddrive.drive.exporter import ExportReport, export_tree
from ddrive.drive.handles import FileHandle
from ddrive.drive.holdings import Usage, clear, download, usage
from ddrive.drive.importer import ImportReport, import_tree
from ddrive.drive.mirror import MirrorReport, mirror
from ddrive.drive.mounts import DriveMount
from ddrive.drive.reader import FileReader
from ddrive.drive.report import Progress, Refused
from ddrive.drive.stat import Mount, Stat
from ddrive.drive.walks import Change, DirEntry
from ddrive.drive.writer import NewEntry

__all__ = [
    "Change",
    "DirEntry",
    "Drive",
    "DriveFeeds",
    "DriveMount",
    "ExportReport",
    "FileHandle",
    "FileReader",
    "ImportReport",
    "Info",
    "KeyRef",
    "MirrorReport",
    "Mount",
    "NewEntry",
    "Progress",
    "Refused",
    "Stat",
    "Usage",
    "clear",
    "download",
    "export_tree",
    "format_url",
    "import_tree",
    "mirror",
    "open_drive",
    "parse_key",
    "usage",
]
