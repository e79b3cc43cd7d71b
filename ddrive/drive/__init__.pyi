from .address import KeyRef, format_url, parse_key
from .drive import Drive, DriveFeeds, Info, open_drive
from .exporter import ExportReport, export_tree
from .handles import FileHandle
from .history import require_version
from .holdings import Usage, clear, download, usage
from .importer import ImportReport, import_tree
from .mirroring import MirrorReport, mirror
from .mounts import DriveMount
from .reaching import Reach
from .reader import FileReader
from .report import Progress, Refused
from .stat import Mount, Stat
from .walks import Change, DirEntry
from .writer import NewEntry

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
    "Reach",
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
    "require_version",
    "usage",
]
