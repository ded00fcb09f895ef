"""The one exception that is meant to be read by the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend. The message names the cause and the mend; no traceback is shown."""
