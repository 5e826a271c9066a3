"""Asyncio and process building blocks without domain words: wire, children, supervision, SQLite, back-off."""
