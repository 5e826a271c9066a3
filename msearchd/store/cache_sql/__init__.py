"""SQL of the vector cache: numbered migrations and named queries."""
