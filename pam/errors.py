"""Errors that the user can correct, and their exit messages."""

import os
import select
import signal
import sys
from collections.abc import Callable


class PamError(ValueError):
    """Bad input, configuration or environment: one line with the source, the value and the fix."""

    def __str__(self) -> str:
        """Its own words: a DataLoader raises it again with the traceback of another process."""
        return super().__str__().rpartition(f"{__name__}.{PamError.__name__}: ")[2].rstrip("\n")


class MachineError(PamError):
    """The machine failed, not what it was given: open files, memory, the disk."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a program's `main` and exit: a `PamError` becomes one line on stderr and status 1."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        sys.exit(128 + signal.SIGPIPE)  # the status of a program that this signal ends
    except PamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except UnicodeEncodeError as error:
        if not any("\ud800" <= character <= "\udfff" for character in error.object):
            raise
        name = ascii(next(line for line in error.object.splitlines() if not _is_utf8(line)))
        print(
            f"error: {name}: the name of a file or folder is not UTF-8: rename it, e.g. with: "
            "convmv -r -f LATIN1 -t UTF-8 --notest FOLDER",
            file=sys.stderr,
        )
        sys.exit(1)
    except OSError as error:
        from pam.disk import in_words  # which imports this module

        if (line := in_words(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more (`pam config | head`); then it is closed."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
