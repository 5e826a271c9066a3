"""The persistent queue: what is owed for which asset, and what became of it."""
