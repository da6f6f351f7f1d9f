"""Errors that are the user's to mend, and how a program ends on one."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input, configuration or environment: one line with the source, the value and the fix."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a program's `main` and exit: a `UserError` becomes one line on stderr and status 1."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)
