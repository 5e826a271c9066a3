"""The facade that the routes serve. It is defined one floor below the orchestrator, which implements it."""

from msearchd.control.protocol import Control

__all__ = ["Control"]
