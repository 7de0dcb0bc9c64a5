"""Packages that only some people need, imported when they are used."""

from importlib import import_module
from types import ModuleType

from medprism.errors import UserError


def require(module: str, *, extra: str) -> ModuleType:
    """Import a package that one of our extras brings.

    Args:
        module: Name as in `import`.
        extra: The extra of medprism that installs it.

    Returns:
        The module.

    Raises:
        UserError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f'expected the package {module}, got "{error}"; install it with `pip install "medprism[{extra}]"`'
        ) from error
