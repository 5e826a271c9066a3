"""SQL of what is kept of the models: numbered migrations and named queries."""
