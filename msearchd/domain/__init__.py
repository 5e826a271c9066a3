"""Frozen values that travel between the stages. No I/O, no clock, no imports but the standard library."""
