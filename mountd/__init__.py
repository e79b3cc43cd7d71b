"""The program around the ddrive library: engine, mount workers and the `ddrive` command."""
