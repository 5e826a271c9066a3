"""Turns one job into points: intake of changes, planning of steps, running them."""
