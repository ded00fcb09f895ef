"""The exception for mistakes that the user can correct."""

import re
import textwrap

LONGEST = 300  # characters of an exception of other code in a message


class UserError(Exception):
    """A mistake that the user can correct. The command line prints its message without a traceback."""


def user_error_in(error: BaseException | None) -> UserError | None:
    """The `UserError` that an exception is, or that caused it: jsonargparse wraps what a class raises. Or else None."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def reason(error: BaseException) -> str:
    """Describe an exception in one line: its type, unless the message is enough, and the message."""
    message = " ".join(str(error).split())
    if len(message) > LONGEST:
        sentences = re.match(r".*(?<!e\.g)(?<!i\.e)\.(?= )", message[:LONGEST])
        message = sentences[0] if sentences else textwrap.shorten(message, LONGEST, placeholder=" …")
    return message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"
