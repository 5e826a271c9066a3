"""One request of a program (OpenAI-shaped) into vectors or scores of the pool's models."""
