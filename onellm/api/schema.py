"""The requests of OpenAI's chat completions, as far as a model of eight kinds of file can honour them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from onellm.chat.sampling import RANGES, check_stop
from onellm.errors import OneLLMError
from onellm.model.messages import without_surrogates

__all__ = ["Completion", "Message", "Part"]

NOT_TAKEN = ("tools", "functions", "logprobs", "audio", "prediction")


def _within(name: str) -> Any:
    """Return the field of a setting, which keeps to the range that `Settings` knows."""
    least, most = RANGES[name]
    return Field(None, ge=least, le=most, allow_inf_nan=False)


Words = Annotated[str, AfterValidator(without_surrogates)]


class Text(BaseModel):
    """Words."""

    type: Literal["text"]
    text: Words


class Url(BaseModel):
    """A data URL; others are refused where it is read."""

    url: str


class ImageUrl(BaseModel):
    """A picture."""

    type: Literal["image_url"]
    image_url: Url


class VideoUrl(BaseModel):
    """A video."""

    type: Literal["video_url"]
    video_url: Url


class Sound(BaseModel):
    """A sound's bytes in base64, and the ending of its file name."""

    data: str
    format: str = Field(pattern=r"^[A-Za-z0-9]{1,8}$")


class InputAudio(BaseModel):
    """A sound."""

    type: Literal["input_audio"]
    input_audio: Sound


class FileData(BaseModel):
    """A file of any kind, as a data URL or in base64.

    Attributes:
        kind: which of the eight kinds it is; by default what its content says.
        picture: data URL of the picture beside a depth or a normal map.
    """

    filename: Words = Field(min_length=1, max_length=255)
    file_data: str
    kind: Words | None = Field(None, max_length=100)
    picture: str | None = None


class File(BaseModel):
    """Any file."""

    type: Literal["file"]
    file: FileData


Part = Annotated[Text | ImageUrl | VideoUrl | InputAudio | File, Field(discriminator="type")]


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Words | list[Part] | None = None

    @property
    def parts(self) -> list:
        """The content as a list of parts."""
        if isinstance(self.content, list):
            return self.content
        return [Text(type="text", text=self.content)] if self.content else []

    @property
    def text(self) -> str:
        """The text of the content."""
        return "\n".join(part.text for part in self.parts if part.type == "text")


class StreamOptions(BaseModel):
    """How a stream ends."""

    include_usage: bool = False


class Completion(BaseModel):
    """A request for an answer; what it does not name is ignored, as by other servers of this style."""

    model_config = ConfigDict(extra="allow")

    model: Words = Field(max_length=1_000)
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = _within("temperature")
    top_p: float | None = _within("top_p")
    max_tokens: int | None = Field(None, ge=1)  # more than there are is as many as there are
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: Words | list[Words] | None = None
    n: Literal[1] | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("stop")
    @classmethod
    def _few(cls, stop: str | list[str] | None) -> list[str]:
        """Make a list of the stop strings."""
        try:
            return check_stop(stop or ())
        except OneLLMError as error:
            raise ValueError(str(error)) from error

    @field_validator("response_format")
    @classmethod
    def _plain(cls, form: dict[str, Any] | None) -> dict[str, Any] | None:
        """Refuse what would not be honoured."""
        if form and form.get("type") != "text":
            raise ValueError("this model answers in plain text only; leave response_format out")
        return form

    def model_post_init(self, context: Any) -> None:
        """Refuse what changes the meaning of an answer and is not known here."""
        asked = [name for name in NOT_TAKEN if (self.model_extra or {}).get(name)]
        if asked:
            raise ValueError(f"this model knows no {asked[0]}; leave the field out")
