"""How a process of a training tells its launcher why it ended: with these words first."""

from pam.errors import PamError

USER_ERROR = f"{PamError.__name__}: "
LOST = "the connection to another process failed, perhaps because it has ended"
