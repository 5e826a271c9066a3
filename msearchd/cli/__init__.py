"""Command lines: msearchd (daemon) and msearch (client)."""
