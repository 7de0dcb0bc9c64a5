"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """What was expected, what came, what to do, in one line.

    The command line prints it as `error: …` and exits with code 2, without a traceback unless `--debug`.
    """
