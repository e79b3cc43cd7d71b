"""`mount.ddrive`: what mount(8) runs for a line of /etc/fstab, `KEY /mnt/data fuse.ddrive OPTIONS 0 0`.

Source of the call and of its exit codes: mount(8), "External helpers" and "Exit status".
"""

import getopt
import sys
from collections.abc import Sequence

import mountd.cli

EXIT_USAGE = 1
EXIT_FAILED = 32
USAGE = "mount.ddrive: %s: call it as mount.ddrive KEY MOUNTPOINT [-fnrsvw] [-o OPTIONS] [-t TYPE]\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Mount a drive as `ddrive mount` does, and end the process with an exit code of mount(8)."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    try:
        flags, words = getopt.gnu_getopt(list(arguments), "fnrsvwo:t:")
    except getopt.GetoptError as error:
        sys.stderr.write(USAGE % error)
        return EXIT_USAGE
    if len(words) != 2:
        sys.stderr.write(USAGE % "a key and a mountpoint are needed")
        return EXIT_USAGE
    if any(name == "-f" for name, _ in flags):  # only as if
        return 0
    options = [value for name, value in flags if name == "-o"] + ["ro" for name, _ in flags if name == "-r"]
    try:
        mountd.cli.main(["mount", *(["-o", ",".join(options)] if options else []), "--", *words])
    except SystemExit as end:
        return {0: 0, 2: EXIT_USAGE}.get(end.code if isinstance(end.code, int) else 1, EXIT_FAILED)
    return 0


if __name__ == "__main__":
    main()
