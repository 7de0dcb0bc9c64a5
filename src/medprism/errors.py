"""The one exception for mistakes that a user can mend, and the shortest way to raise it."""


class UserError(Exception):
    """What was expected, what came, what to do, in one line.

    The command line prints it as `error: …` and exits with code 2, without a traceback unless `--debug`.
    """


def expect(fits: bool, wanted: str, option: str, value: object) -> None:
    """Refuse the value of an option that cannot be.

    Args:
        fits: whether it can be.
        wanted: what can be, in words.
        option: its name.
        value: what came.

    Raises:
        UserError: it does not fit.
    """
    if not fits:
        raise UserError(f"expected {wanted} for {option}, got {value}")
