"""Every size, time and count limit, in one table; the unit is the last word of each name.

Each can be set by an environment variable, `ONELLM_LIMIT_` and the name in capitals: ``ONELLM_LIMIT_QUEUE=4``.
"""

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields

from onellm.errors import OneLLMError

__all__ = ["LIMITS", "Limits"]

MEGA = 1_000_000
PREFIX = "ONELLM_LIMIT_"


def limit(value: float, meaning: str) -> Field:
    """Declare a limit.

    Args:
        value: its default; an int or a float, as what is set must be.
        meaning: what it limits, for people.
    """
    return field(default=value, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Limits:
    """Limits of files, of decoded content, of a conversation and of what all visitors may use together.

    Files beyond a ``_bytes``, ``_pixels``, ``_rows`` or count limit are refused; sounds and videos beyond
    their ``_seconds`` are cut, and the sample says so.
    """

    image_bytes: int = limit(20 * MEGA, "a picture's file")
    image_pixels: int = limit(40 * MEGA, "a picture")
    image_side_pixels: int = limit(2048, "side to which larger pictures are reduced")

    video_bytes: int = limit(100 * MEGA, "a video's file")
    video_seconds: float = limit(120.0, "how much of a video is used")
    video_pixels: int = limit(1920 * 1088, "a frame of a video")
    video_frames: int = limit(30_000, "compressed frames in a video")
    video_sampled_frames: int = limit(64, "frames of a video that are kept")
    video_decoded_pixels: int = limit(1_000 * MEGA, "what is decoded of a video")
    gif_decoded_pixels: int = limit(2_000 * MEGA, "an animated GIF, all frames together")

    audio_bytes: int = limit(25 * MEGA, "a sound's file")
    audio_seconds: float = limit(60.0, "how much of a sound is used")
    audio_values_hz: int = limit(800_000, "a sound's rate times its channels")

    point_bytes: int = limit(50 * MEGA, "a point cloud's or a mesh's file")
    point_count: int = limit(2 * MEGA, "points")
    triangle_count: int = limit(4 * MEGA, "triangles of a mesh")

    fmri_bytes: int = limit(100 * MEGA, "a brain scan's file")
    fmri_decoded_bytes: int = limit(512 * MEGA, "a brain scan, unpacked")

    imu_bytes: int = limit(5 * MEGA, "motion data's file")
    imu_rows: int = limit(100_000, "rows of motion data")

    depth_bytes: int = limit(40 * MEGA, "a depth map's file")
    normal_bytes: int = limit(40 * MEGA, "a normal map's file")
    map_pixels: int = limit(10 * MEGA, "a depth or a normal map")

    archive_names: int = limit(1_000, "files in a zip archive (npz, exported conversations)")

    load_seconds: float = limit(20.0, "reading one file")
    load_memory_bytes: int = limit(2_000 * MEGA, "memory for reading one file")
    readers: int = limit(2, "files read at once, each in a process of its own; 0: in the app's process, for own files")

    files_per_turn: int = limit(8, "files of one question")
    turn_bytes: int = limit(200 * MEGA, "files of one question, together; also the body of one request")
    import_bytes: int = limit(500 * MEGA, "an imported conversation, unpacked")
    message_characters: int = limit(8_000, "a question")
    chat_characters: int = limit(32_000, "a conversation")
    chat_turns: int = limit(100, "questions of a conversation")
    new_tokens: int = limit(1_024, "tokens of an answer")

    queue: int = limit(16, "questions that wait behind the one being answered")
    caches: int = limit(4, "conversations whose attention cache is kept for their next question")
    event_bytes: int = limit(8 * MEGA, "a request that brings no files")
    bodies_bytes: int = limit(1_000 * MEGA, "bodies of requests being received, together")
    visitor_bytes: int = limit(1_000 * MEGA, "uploads of one visitor within their lifetime")
    uploads_bytes: int = limit(10_000 * MEGA, "uploads of all visitors")
    upload_lifetime_s: int = limit(3_600, "how long an upload is kept")

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
            kind = type(known[name].default)
            try:
                value = kind(text.replace("_", ""))
            except ValueError:
                value = -1
            if not 0 <= value < float("inf"):
                raise OneLLMError(
                    f"{name} is {text!r}; expected {'a whole number' if kind is int else 'a number'} of 0 or more, "
                    f"such as {known[name].default}; correct it."
                )
            given[known[name].name] = value
        return cls(**given)


LIMITS = Limits.read(os.environ)
