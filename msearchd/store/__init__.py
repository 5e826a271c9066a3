"""Where what we know is kept: the catalog (SQLite: the truth) and the vector store (Qdrant: derived, can be rebuilt)."""
