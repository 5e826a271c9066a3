"""SQL of the catalog: numbered migrations and named queries."""
