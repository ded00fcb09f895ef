"""The exception for mistakes that the user can correct."""


class UserError(Exception):
    """A mistake that the user can correct. The command line prints its message without a traceback."""
