"""Benchmarks and the demo: commands that print ratios against a named limit or peer, measured in the same run."""
