"""Names of AudioCaps' clips in common use: which clip a file is, by its name.

ID is the video's: eleven letters, digits, - and _, the first one too. Times are seconds, also as
000030 or 30.000, or milliseconds. Y stands before ID in copies of AudioSet. AUDIOCAP_ID is
AudioCaps' own number of a caption.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

# In the order in which they are preferred; the first is what AudioCaps' own table says.
PATTERNS = ("ID_START", "ID_START_END", "YID_START", "YID_START_END", "ID", "YID", "AUDIOCAP_ID")
KNOWN = f"YOUTUBEID_START.wav (or {', '.join(PATTERNS[1:])}; flac, mp3, ogg and opus too)"
TIME = r"_(\d+(?:\.\d+)?)"


class Names:
    """The clips of a part, to be found by names of files.

    Args:
        captions: (clip as ID_START, AudioCaps' number of a caption of it).
    """

    def __init__(self, captions: Iterable[tuple[str, int]]):
        self._clips: dict[str, dict[float, str]] = defaultdict(dict)  # id → {start: clip}
        self._numbers: dict[int, str] = {}
        for clip, number in captions:
            video, _, start = clip.rpartition("_")
            self._clips[video][float(start)] = clip
            self._numbers[number] = clip

    def find(self, stem: str) -> tuple[str, str] | None:
        """(clip, its pattern) of a file's name without suffix; None: of no clip, or of several."""
        for prefix in ("", "Y"):
            rest = stem.removeprefix(prefix)
            if rest == stem and prefix:
                break
            for video, start, end in _readings(rest):
                if clip := self._clips.get(video, {}).get(start):
                    return clip, f"{prefix}ID_START" + "_END" * (end is not None)
            clips = self._clips.get(rest, {})
            if len(clips) == 1:  # the name does not say which of a video's two clips it is
                return next(iter(clips.values())), f"{prefix}ID"
        if re.fullmatch(r"[0-9]+", stem) and int(stem) in self._numbers:
            return self._numbers[int(stem)], "AUDIOCAP_ID"
        return None


def _readings(text: str) -> Iterable[tuple[str, float, float | None]]:
    """(id, start, end) in seconds, each way to read the text: an id may end with _1 itself."""
    for times in (TIME, TIME + TIME):
        if found := re.fullmatch(f"(.+){times}", text, re.ASCII):
            video, first, *last = found.groups()
            for scale in (1, 1000):
                start, end = float(first) / scale, float(last[0]) / scale if last else None
                if end is None or start < end:
                    yield video, start, end
