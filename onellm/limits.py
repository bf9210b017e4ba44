"""Every size, time and count limit, in one table; the unit is the last word of each name."""

from dataclasses import dataclass

__all__ = ["LIMITS", "Limits"]

MEGA = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Limits of files, of decoded content and of a conversation.

    Files beyond a ``_bytes``, ``_pixels``, ``_rows`` or count limit are refused; sounds and videos beyond
    their ``_seconds`` are cut, and the sample says so.
    """

    image_bytes: int = 20 * MEGA
    image_pixels: int = 40 * MEGA
    image_side_pixels: int = 2048  # larger pictures are reduced to this side when they are read

    video_bytes: int = 100 * MEGA
    video_seconds: float = 120.0
    video_pixels: int = 1920 * 1088
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

    imu_bytes: int = 5 * MEGA
    imu_rows: int = 100_000

    depth_bytes: int = 40 * MEGA
    normal_bytes: int = 40 * MEGA
    map_pixels: int = 10 * MEGA  # of a depth or a normal map

    load_seconds: float = 20.0
    files_per_turn: int = 8
    turn_bytes: int = 200 * MEGA
    import_bytes: int = 500 * MEGA  # a zip of a conversation, unpacked
    message_characters: int = 8_000
    chat_characters: int = 32_000
    chat_turns: int = 100
    new_tokens: int = 1_024
    queue: int = 16
    upload_lifetime_s: int = 3_600


LIMITS = Limits()
