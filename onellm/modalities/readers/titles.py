"""The titles of a motion recording's columns: which sensor, which axis, which unit; in the words that apps write."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Title", "parse_title", "sensor_of"]

_TITLE_CHARACTERS = 100
_UNITS = {
    "g": "g", "gs": "g", "mg": "mg", "ms2": "m/s2", "mss": "m/s2", "m/s2": "m/s2", "m/s^2": "m/s2", "m/s²": "m/s2",
    "m/s/s": "m/s2", "ms-2": "m/s2", "ms^-2": "m/s2", "mps2": "m/s2", "m/sec^2": "m/s2", "m/sec2": "m/s2",
    "m*s^-2": "m/s2",
    "rad": "rad/s", "rads": "rad/s", "rad/s": "rad/s", "radps": "rad/s", "rps": "rad/s", "rads^-1": "rad/s",
    "rads-1": "rad/s", "rad/sec": "rad/s", "rad*s^-1": "rad/s", "radians/s": "rad/s",
    "deg": "deg/s", "degs": "deg/s", "deg/s": "deg/s", "dps": "deg/s", "degps": "deg/s", "°/s": "deg/s", "°s": "deg/s",
    "deg/sec": "deg/s", "degs^-1": "deg/s", "°/sec": "deg/s", "grad/s": "deg/s", "degrees/s": "deg/s", "mdps": "mdeg/s",
    "s": "s", "sec": "s", "secs": "s", "seconds": "s", "ms": "ms", "msec": "ms", "millis": "ms", "milliseconds": "ms",
    "us": "us", "µs": "us", "μs": "us", "usec": "us", "micros": "us", "microseconds": "us", "ns": "ns", "nsec": "ns",
    "nanos": "ns", "nanoseconds": "ns",
}  # fmt: skip
_ACC_UNITS, _GYRO_UNITS, _TIME_UNITS = ("g", "mg", "m/s2"), ("rad/s", "deg/s", "mdeg/s"), ("s", "ms", "us", "ns")
_OTHERS = re.compile(
    r"magn|^mag|mag$|quat|orient|attitude|euler|angle|winkel(?!gesch)|gps|latit|longit|altit|position|rotationvec|"
    r"temp(?!s)|press|baro|light|lux|covar|bias|varian|delta|velinc|oriinc|jerk|angularacc|heading|course|absolute|"
    r"magnitude|norm|resultant|heart|batter|humid|proxim|count|label|activity"
)
_LINEAR = re.compile(
    r"lin(?:ear|eal|eare|eaire)?acc|lineal|lineair|linear|linea|useracc|bodyacc|freeacc|dynacc|dynamicacc|laccel|"
    r"without|ohne|sansg|sin(?:la)?grav|nograv|exclud|compensat"
)
_GRAVITY = re.compile(r"grav|schwerkraft|重力|гравит|zwaartekracht")
_GYRO = re.compile(
    r"gyr|giro|kreisel|omega|angularvel|angvel|angularrate|angrate|angularspeed|rotationrate|rotrate|rotation|turnrate|"
    r"turningrate|drehrate|drehgeschw|winkelgeschw|vitesseangul|vitesserot|velocidadang|velocidadeang|velocitaang|"
    r"hoeksnelh|角速度|陀螺|ジャイロ|гиро|углов|자이로"
)
_ACC = re.compile(r"acc|acel|beschl|versnel|ivme|specificforce|gforce|ускор|加速度|가속도|xl(?=$)")
_EXACT = {"a": "acc", "gf": "acc", "w": "gyro", "g": "gyro", "rot": "gyro", "rate": "gyro", "rates": "gyro"}
_TIMES = ("t", "ts", "time", "timestamp", "timestamps", "seconds", "secondselapsed", "elapsed", "sec", "secs", "zeit",
          "temps", "tiempo", "tempo", "tijd", "date", "datetime", "epoch", "stamp", "utc", "clock", "millis", "ms",
          "us", "ns", "时间", "時間", "время", "시간")  # fmt: skip
_AXIS_WORDS = {"roll": "x", "pitch": "y", "yaw": "z"}
_TAILS = (
    "raw",
    "value",
    "phone",
    "watch",
    "sensor",
    "axis",
    "achse",
    "axe",
    "eje",
    "asse",
    "data",
    "cal",
    "calibrated",
)


@dataclass(frozen=True)
class Title:
    """What a column's title says.

    Attributes:
        sensor: "time", "acc", "linear" (without gravity), "gravity", "gyro", "bare" (an axis alone) or None.
        axis: "x", "y" or "z", or None.
        stem: the title without the axis and the unit; a sensor's three columns share it.
        unit: "m/s2", "g", "mg", "rad/s", "deg/s", "mdeg/s", "s", "ms", "us", "ns" or None.
        weak: whether the sensor is told by a single letter.
    """

    sensor: str | None
    axis: str | None
    stem: str
    unit: str | None
    weak: bool = False


def _plain(text: str) -> str:
    """Return lower case without accents."""
    text = unicodedata.normalize("NFKD", text.replace("²", "2").replace("°", "°"))
    return "".join(character for character in text if not unicodedata.combining(character)).lower()


def sensor_of(text: str) -> tuple[str | None, bool]:
    """Tell a sensor by words, and whether by a single letter only.

    Args:
        text: of a title or a file's name, without the axis.

    Returns:
        "acc", "linear", "gravity", "gyro" or None; and whether that is weak.
    """
    words = re.findall(r"[^\W\d_]+", _plain(text))
    joined = "".join(words)
    if _OTHERS.search(joined):
        return None, False
    acceleration, linear = bool(_ACC.search(joined)), bool(_LINEAR.search(joined))
    if _GRAVITY.search(joined) and not (acceleration and re.search("incl|with(?!out)|mit|avec|total", joined)):
        return ("linear" if linear else "gravity"), False
    if _GYRO.search(joined):
        return "gyro", False
    if acceleration:
        return ("linear" if linear else "acc"), False
    if words and words[0] in _EXACT:
        return _EXACT[words[0]], len(words[0]) == 1
    if words and words[-1] in ("rate", "rates", "rot"):
        return "gyro", False
    return None, False


@lru_cache(4096)
def parse_title(title: str) -> Title:
    """Tell a column by its title.

    Args:
        title: such as "acc_x [g]", "w_RS_S_x [rad s^-1]" or "Beschleunigung x (m/s^2)".

    Returns:
        What it says.
    """
    text = title.strip()[:_TITLE_CHARACTERS]
    unit = None
    for bracket in re.findall(r"[\[(][^\[\]()]*[\])]", text):
        found = _UNITS.get(re.sub(r"[\s·⋅]", "", bracket[1:-1].lower()))
        unit = unit or found
        text = text.replace(bracket, " " if found else f" {bracket[1:-1]} ")
    text = re.sub(r"\bgF(?=[xyzXYZ]\b)", "gf ", text)  # "gFx" of Physics Toolbox: the force in g
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    words = [word for word in re.split(r"[\s_\-.:/,;|#%]+", _plain(text)) if word]
    while len(words) > 1 and words[-1] in _TAILS:
        words.pop()
    for tail in (3, 2, 1):
        if words[-1:] and re.fullmatch("nsecs?|nanosecs?", words[-1]):  # beside a column of whole seconds
            break
        joined = "".join(words[-tail:])
        if unit is None and len(words) > tail and joined in _UNITS:
            unit, words = _UNITS[joined], words[:-tail]
            break
    name = "".join(words)
    axis, rest = _axis(words)
    if axis is None and re.fullmatch("nsecs?|nanosecs?|nanoseconds", words[-1] if len(words) > 1 else ""):
        return Title("nanos", None, name, "ns")
    if axis is None and (name in _TIMES or re.search("time|zeit(?!punkt)|elapsed|stamp$", name)):
        return Title("time", None, name, unit if unit in _TIME_UNITS else _UNITS.get(name))
    sensor, weak = sensor_of(" ".join(rest))
    turned = [word for word in words if word in _AXIS_WORDS]
    if axis is None and sensor == "gyro" and len(turned) == 1:
        axis, rest = _AXIS_WORDS[turned[0]], [word for word in words if word not in _AXIS_WORDS]
    if axis is None:
        return Title(None, None, name, unit)
    stem = " ".join(rest)
    if sensor is None and not _OTHERS.search("".join(rest)) and len("".join(rest)) <= 1:
        sensor = "acc" if unit in _ACC_UNITS else "gyro" if unit in _GYRO_UNITS else "bare"
    return Title(sensor, axis, stem, unit, weak)


def _axis(words: list[str]) -> tuple[str | None, list[str]]:
    """Find the axis: a word, or a letter at the end or the start of one; return it and the other words."""
    for index, word in reversed(list(enumerate(words))):
        if word in ("x", "y", "z"):
            return word, words[:index] + words[index + 1 :]
    for index, word in reversed(list(enumerate(words))):
        for axis, rest in ((word[-1], word[:-1]), (word[0], word[1:])):
            if axis in "xyz" and rest and (rest in _EXACT or sensor_of(rest)[0] or not rest.isascii()):
                return axis, words[:index] + [rest] + words[index + 1 :]
    if len(words) > 1 and words[-1] in ("0", "1", "2", "3") and sensor_of(" ".join(words[:-1]))[0]:
        return words[-1], words[:-1]
    return None, words
