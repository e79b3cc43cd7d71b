"""ddrive: a file system backed by signed, append-only feeds that peers exchange."""
