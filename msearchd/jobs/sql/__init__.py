"""SQL of the queue: numbered migrations and named queries."""
