"""Archives of features: an `.ark` file of arrays, and an `.scp` file with the start of each array.

No other module uses kaldiio. Arrays are stored in numpy's format, which kaldiio and ESPnet read.
Pickled arrays can run code when they are loaded, so they are neither written nor read.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pam.atomic import atomic_path
from pam.data.scp import read_text_file, write_text_file
from pam.disk import writing
from pam.errors import PamError

DUMP_AGAIN = "remove that folder's feats.scp and run the dump stage again"
MADE_AGAIN = (
    "if the states were dumped again since this list of them was made, "
    "remove the combined set and run stages 2 and 3 again"
)


def write_archive(
    ark: str | Path, scp: str | Path, items: Iterable[tuple[str, np.ndarray]]
) -> dict[str, str]:
    """Write (utterance, float16 array) pairs; returns and writes utterance → `path:offset`.

    The scp is written last: if it exists, the archive is complete. A full disk leaves neither file.
    """
    import kaldiio

    ark = Path(ark).absolute()  # valid in any working directory
    pointers: dict[str, str] = {}
    with writing(ark), atomic_path(ark) as part, part.open("wb") as file:
        for utt, array in items:
            _check(ark, utt, array, pointers)
            pointers[utt] = f"{ark}:{file.tell() + len(f'{utt} '.encode())}"
            kaldiio.save_ark(file, {utt: array}, write_function="numpy")
    write_text_file(scp, pointers)
    return pointers


def read_scp(path: str | Path) -> dict[str, str]:
    """Read an scp: utterance → `path:offset`."""
    return read_text_file(path)


def archives(scp: str | Path) -> set[Path]:
    """The archives that the pointers of an scp lead to."""
    return {Path(pointer.rpartition(":")[0]) for pointer in read_scp(scp).values()}


def merge_scp(parts: Iterable[str | Path], out: str | Path) -> dict[str, str]:
    """Merge several scp files into one. `PamError` for an utterance that is in two of them."""
    merged: dict[str, str] = {}
    for part in parts:
        entries = read_scp(part)
        if clash := merged.keys() & entries.keys():
            raise PamError(f"{part}: {min(clash)!r} is in another part too: {DUMP_AGAIN}")
        merged |= entries
    write_text_file(out, merged)
    return merged


def load(pointer: str, utt: str) -> np.ndarray:
    """Read the array of `utt` at `path:offset`. `PamError` if the archive is missing or truncated,
    or has another utterance there: the bytes before an array are its id and a space."""
    ark, _, offset = pointer.rpartition(":")
    key = f"{utt} ".encode()
    try:
        with Path(ark).open("rb", buffering=0) as file:
            file.seek(max(int(offset) - len(key), 0))
            before = file.read(min(int(offset), len(key)))
            if file.read(3) != b"NPY":
                raise ValueError("no array starts here")
            file.seek(file.read(1)[0], 1)  # skip the size, which numpy's header repeats
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        is_gone = isinstance(error, FileNotFoundError)
        remedy = f"{MADE_AGAIN}; else {DUMP_AGAIN}" if is_gone else DUMP_AGAIN
        raise PamError(f"{pointer}: truncated or missing archive ({reason}): {remedy}") from error
    if before != key:
        raise PamError(f"{pointer}: other states than those of {utt!r}: {MADE_AGAIN}")
    return array


def _check(ark: Path, utt: str, array: np.ndarray, written: dict[str, str]) -> None:
    if array.dtype != np.float16:
        raise TypeError(f"{ark}: {utt!r} is {array.dtype}, expected float16")
    if utt in written:
        raise PamError(f"{ark}: {utt!r} comes twice: make the utterance ids unique")
    if not np.isfinite(array).all():
        raise PamError(f"{ark}: {utt!r} has NaN or infinite features in float16")
