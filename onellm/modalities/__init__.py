"""The kinds of file OneLLM understands; adding a kind is adding a file here and a line to the registry."""

import os

from onellm.errors import FileError
from onellm.modalities import isolated
from onellm.modalities.audio import Audio
from onellm.modalities.base import Modality, Preview, Sample, Seen, refuse
from onellm.modalities.depth import Depth
from onellm.modalities.fmri import Fmri
from onellm.modalities.image import Image
from onellm.modalities.imu import Imu
from onellm.modalities.normal import Normal
from onellm.modalities.point import Point
from onellm.modalities.video import Video

__all__ = ["MODALITIES", "WITH_PICTURE", "Modality", "Preview", "Sample", "Seen", "kinds_of", "load"]

MODALITIES: dict[str, Modality] = {
    modality.name: modality for modality in (Image(), Video(), Audio(), Point(), Fmri(), Imu(), Depth(), Normal())
}
WITH_PICTURE = tuple(kind for kind, modality in MODALITIES.items() if "picture" in modality.options)


def load(kind: str, path: str | os.PathLike, **options) -> Sample:
    """Read a file as one kind, in a process of its own.

    Args:
        kind: a key of `MODALITIES`.
        path: the file.
        **options: the kind's own options; None means "not given".

    Returns:
        The file's content.

    Raises:
        FileError: if the kind is unknown or the file cannot be used as that kind.
        BusyError: too many files are being read.
    """
    if kind not in MODALITIES:
        raise FileError(f"unknown kind {kind!r}; expected one of: {', '.join(MODALITIES)}; correct the name.")
    modality = MODALITIES[kind]
    try:
        return isolated.call(load_here, kind, path, libraries=modality.libraries, **options)
    except isolated.Died as death:
        raise refuse(path, death.found, modality.expects, death.advice) from death


def load_here(kind: str, path: str | os.PathLike, **options) -> Sample:
    """Read a file as one kind in this process; for what is not stated see `load`."""
    return MODALITIES[kind].load(path, **options)


def kinds_of(path: str | os.PathLike) -> list[str]:
    """List the kinds whose suffixes a file name has, in the registry's order."""
    name = os.path.basename(os.fspath(path)).lower()
    return [kind for kind, modality in MODALITIES.items() if name.endswith(modality.suffixes)]
