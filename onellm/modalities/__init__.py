"""The modalities OneLLM understands; adding a modality is adding a file here and a line to the registry."""

import os

from onellm.errors import FileError
from onellm.modalities import sandbox
from onellm.modalities.audio import Audio
from onellm.modalities.base import Coverage, Modality, Preview, Sample, refuse
from onellm.modalities.cache import SampleCache, stamp
from onellm.modalities.depth import Depth
from onellm.modalities.fmri import Fmri
from onellm.modalities.image import Image
from onellm.modalities.imu import Imu
from onellm.modalities.normal import Normal
from onellm.modalities.point import Point
from onellm.modalities.video import Video
from onellm.utils import limits

__all__ = ["MODALITIES", "WITH_PICTURE", "Modality", "Preview", "Sample", "Coverage", "modalities_of", "load"]

MODALITIES: dict[str, Modality] = {
    modality.name: modality for modality in (Image(), Video(), Audio(), Point(), Fmri(), Imu(), Depth(), Normal())
}
Modality.siblings = MODALITIES
CACHE = SampleCache()
WITH_PICTURE = tuple(name for name, modality in MODALITIES.items() if "picture" in modality.options)


def load(modality: str, path: str | os.PathLike, **options) -> Sample:
    """Read a file as one modality, in a process of its own; one that is in use is not read twice.

    Args:
        modality: a key of `MODALITIES`.
        path: the file.
        **options: the modality's own options; None means "not given".

    Returns:
        The file's content; its arrays are shared with others who read the same file, and read-only.

    Raises:
        OneLLMError: an environment variable sets a limit that is none.
        FileError: if the modality is unknown or the file cannot be used as that modality.
        BusyError: too many files are being read.
    """
    limits.check()
    if modality not in MODALITIES:
        raise FileError(f"unknown kind {modality!r}; expected one of: {', '.join(MODALITIES)}; correct the name.")
    reader = MODALITIES[modality]
    given = {name: value for name, value in sorted(options.items()) if value is not None}

    def key() -> tuple | None:
        files = [stamp(item) for item in (path, given.get("picture")) if item is not None]
        return None if sandbox.trusted() or None in files else (modality, *files, repr(given))

    def read() -> Sample:
        try:
            return sandbox.call(load_here, modality, path, libraries=reader.libraries, **given)
        except sandbox.Died as death:
            raise refuse(path, death.found, reader.expects, death.advice) from death

    return CACHE.get(key, read)


def load_here(modality: str, path: str | os.PathLike, **options) -> Sample:
    """Read a file as one modality in this process; for what is not stated see `load`."""
    return MODALITIES[modality].load(path, **options)


def modalities_of(path: str | os.PathLike) -> list[str]:
    """List the modalities whose suffixes a file name has, in the registry's order."""
    base = os.path.basename(os.fspath(path)).lower()
    return [name for name, modality in MODALITIES.items() if base.endswith(modality.suffixes)]
