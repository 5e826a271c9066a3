"""Turns one question into hits."""
