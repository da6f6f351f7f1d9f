"""Errors that the user can correct, and their exit messages."""

import errno
import os
import select
import signal
import sys
from collections.abc import Callable

REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "it is larger than files may be here (ulimit -f, or the file system)",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EPERM: "it is not permitted here: choose another folder",
    errno.EACCES: "no permission to write: choose another folder or change its rights",
    errno.ENOTEMPTY: "another program has just written it: run the same command again",
}


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
        if is_utf8(error.object):
            raise
        name = ascii(next(line for line in error.object.splitlines() if not is_utf8(line)))
        print(
            f"error: {name}: the name of a file or folder is not UTF-8: rename it, e.g. with: "
            "convmv -r -f LATIN1 -t UTF-8 --notest FOLDER",
            file=sys.stderr,
        )
        sys.exit(1)
    except OSError as error:
        if (line := in_words(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)


def in_words(error: OSError) -> str | None:
    """One line about an error of the disk, of rights or of a path; None for any other error."""
    file = error.filename or "a file or the output"
    if error.errno == errno.ENAMETOOLONG:
        return f"{file}: the name is too long: shorten it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{file}: {error.strerror}: choose another folder or change its rights"
    if error.errno in REMEDIES:
        return f"{file}: {REMEDIES[error.errno]}"
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return f"{file}: {error.strerror}: choose another name"
    return None


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more (`pam config | head`); then it is closed."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
    return True


def is_utf8(text: str) -> bool:
    """Whether UTF-8 has it: bytes of a name or a command line that are not become surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
