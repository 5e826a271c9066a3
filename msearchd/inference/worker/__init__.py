"""Child side of inference. Runs under any interpreter; imports of the daemon the wire and the errors alone."""
