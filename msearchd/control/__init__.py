"""What the control API says, without how: its values, what the daemon must be able to do (Control), its events.

Imports pydantic and errors alone. It lies low so that the orchestrator can answer in these words and api/ serve them.
Never touches a socket, a disk or the clock of the stages.
"""

from msearchd.control.events import Event, EventBus
from msearchd.control.protocol import Control

__all__ = ["Control", "Event", "EventBus"]
