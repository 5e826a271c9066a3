"""Ways to notice changes, one file each, behind msearchd.watch.hints.WatchSource."""
