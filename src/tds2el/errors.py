"""The one exception that users are meant to see."""


class InputError(Exception):
    """A mistake in what the user gave: one line that names the file, option or value and says what to do.

    The command line prints the message without a traceback and ends with exit code 2, on every MPI rank.
    """
