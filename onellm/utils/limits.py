"""Every size, time and count limit, in one table; the unit is the last word of each name.

Each can be set by an environment variable, `ONELLM_LIMIT_` and the name in capitals: ``ONELLM_LIMIT_QUEUE=4``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from onellm.errors import OneLLMError

__all__ = ["LIMITS", "Limits", "check"]

MEGA = 1_000_000
PREFIX = "ONELLM_LIMIT_"


@dataclass(frozen=True)
class Limits:
    """Limits of files, of decoded content, of a conversation and of what all visitors may use together.

    Files beyond a ``_bytes``, ``_pixels``, ``_rows`` or count limit are refused; sounds and videos beyond
    their ``_seconds`` are cut, and the sample says so.
    """

    image_bytes: int = 40 * MEGA
    image_pixels: int = 64 * MEGA
    jpeg_pixels: int = 120 * MEGA  # of a JPEG, which can be decoded at a fraction of its size
    image_side_pixels: int = 2048  # larger pictures are reduced to this side when they are read

    video_bytes: int = 100 * MEGA
    video_seconds: float = 120.0
    video_pixels: int = 4096 * 2176
    video_frame_pixels: int = 1920 * 1088  # larger frames are reduced to this when they are read
    video_frames: int = 30_000  # compressed frames in a file
    video_sampled_frames: int = 64  # frames one load may keep
    video_decoded_pixels: int = 1_000 * MEGA  # decoding work of one load
    gif_decoded_pixels: int = 2_000 * MEGA  # a GIF can only be decoded from its start

    audio_bytes: int = 25 * MEGA
    audio_seconds: float = 60.0
    audio_values_hz: int = 800_000  # rate times channels

    point_bytes: int = 50 * MEGA
    point_count: int = 2 * MEGA
    triangle_count: int = 4 * MEGA

    fmri_bytes: int = 100 * MEGA
    fmri_decoded_bytes: int = 512 * MEGA

    imu_bytes: int = 25 * MEGA
    imu_rows: int = 100_000

    depth_bytes: int = 40 * MEGA
    normal_bytes: int = 40 * MEGA
    map_pixels: int = 10 * MEGA  # of a depth or a normal map

    archive_names: int = 1_000  # files in a zip: npz, exported conversations

    load_seconds: float = 20.0  # of reading one file
    load_memory_bytes: int = 2_000 * MEGA  # for reading one file
    readers: int = 2  # files read at once, each in a process of its own; 0: in this process, for trusted files

    sample_cache_bytes: int = 256 * MEGA  # decoded files that are kept while they are in use; 0: none

    joint_spans: int = 16  # a video and its sound are cut into at most as many
    window_seconds: float = 10.0  # of a long file that is read in windows
    long_windows: int = 8  # windows of such a file
    long_words: int = 32  # that its soft tokens are merged into
    context_share: float = 0.5  # of the positions an LLM knows, for files

    files_per_turn: int = 8
    turn_bytes: int = 200 * MEGA  # files of one question together; also the body of one request
    import_bytes: int = 500 * MEGA  # a zip of a conversation, unpacked
    message_characters: int = 8_000
    chat_characters: int = 32_000
    chat_turns: int = 100
    new_tokens: int = 1_024

    queue: int = 16  # questions that wait behind the one being answered
    stall_seconds: float = 300.0  # without progress of an answer, until the model is loaded again
    caches: int = 4  # conversations whose attention cache is kept for their next question
    event_bytes: int = 8 * MEGA  # a request that brings no files
    bodies_bytes: int = 1_000 * MEGA  # of all requests being received
    visitor_bytes: int = 1_000 * MEGA  # one visitor's uploads within their lifetime
    uploads_bytes: int = 10_000 * MEGA  # all visitors'
    upload_lifetime_s: int = 3_600
    sessions: int = 1_000  # open pages whose conversation is kept in memory; the least recently used goes first
    visitor_sessions: int = 16  # of one visitor
    sessions_bytes: int = 500 * MEGA  # imported conversations that are kept in memory
    feedback_bytes: int = 100 * MEGA  # the log of thumbs; further ones are refused

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Limits":
        """Take limits from environment variables, and the defaults for the others.

        Args:
            environment: names and values.

        Raises:
            OneLLMError: a variable names no limit, or its value is not a number of 0 or more.
        """
        known = {PREFIX + item.name.upper(): item for item in fields(cls)}
        given = {}
        for name, text in environment.items():
            if not name.startswith(PREFIX):
                continue
            if name not in known:
                raise OneLLMError(
                    f"{name} is set, and there is no such limit; docs/security.md lists them; correct the name."
                )
            number = type(known[name].default)
            try:
                value = number(text.replace("_", ""))
            except ValueError:
                value = -1
            if not 0 <= value < float("inf"):
                raise OneLLMError(
                    f"{name} is {text!r}; expected {'a whole number' if number is int else 'a number'} of 0 or more, "
                    f"such as {known[name].default}; correct it."
                )
            given[known[name].name] = value
        return cls(**given)


def check() -> None:
    """Check the environment's limits, as programs do when they start: none may run with limits that nobody meant.

    Raises:
        OneLLMError: a variable names no limit, or its value is not a number of 0 or more.
    """
    if _wrong is not None:
        raise OneLLMError(str(_wrong))


_wrong: OneLLMError | None = None
try:
    LIMITS = Limits.read(os.environ)
except OneLLMError as error:  # an import does not end a program; `check` and the first file that is read say so
    LIMITS, _wrong = Limits(), error
