"""From file system to changes: hints from a source, settled, compared with what we know."""
