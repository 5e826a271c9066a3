"""How the parts of a daemon are put together: each module builds one group of them and starts nothing of its own."""
