"""Models: what they are (spec), which are loaded (pool), and their child processes (worker/)."""
