"""msearchd: a background daemon that keeps a private search index of watched folders.

Nothing is imported here: child processes of other interpreters load this package for its wire format alone.
"""

__version__ = "0.1.0"
