"""`onellm.load`: from a model's name to a conversation with it."""

from onellm.chat.chat import Chat
from onellm.chat.outputs.diffusion import Generators, from_environment
from onellm.hub.loading import load_model
from onellm.utils.progress import Report


def load(
    name: str | None = None,
    *,
    llm: str | None = None,
    quantize: str | None = None,
    device_map: str | dict | None = None,
    max_memory: dict | None = None,
    random_weights: bool = False,
    plain: bool = False,
    generators: dict[str, str] | None = None,
    on_progress: Report | None = None,
) -> Chat:
    """Load a model and open a conversation with it.

    Args:
        name: a model of `MODELS`, or the path of a model folder; by default what `choose` chooses, or onellm-small with
            `llm`, and one line on standard error says which and why.
        llm: another LLM behind the model's perception, where that serves any, as onellm-small's does: one of
            `base_parts.LLMS`, a folder of transformers, or a repository of the model hub.
        quantize: "none", "8bit" or "4bit", on a CPU also "int8"; by default what was measured to be best for the
            model, or "none".
        device_map: as in transformers; "auto" spreads the model over the GPU, main memory and the disk. By default
            all of it is on the first GPU, or on the CPU where there is none.
        max_memory: device -> bytes that "auto" may use of it.
        random_weights: build the model from its configuration alone (`name` may also be a config.json), with random
            weights drawn one tensor at a time where they are to stay: for measuring speed and memory.
        plain: leave the layers as transformers runs them, for comparing.
        generators: modality -> a diffusers pipeline, folder or hub name, that generates pictures ("image"), videos or
            sounds ("audio") where a model only describes them; the environment may name others, see
            `chat.outputs.diffusion`.
        on_progress: takes how far it is, some times a second; it ends the loading by raising `progress.Cancelled`,
            and nothing of the model stays in memory. By default bars are drawn on standard error.

    Returns:
        A fresh conversation; `Chat.new` opens further ones on the same model. With random weights it may lack a
        processor.

    Raises:
        ModelError: there is no such model, it does not fit, or a part of it cannot be fetched or read.
    """
    loaded = load_model(
        name,
        llm=llm,
        quantize=quantize,
        device_map=device_map,
        max_memory=max_memory,
        random_weights=random_weights,
        plain=plain,
        on_progress=on_progress,
    )
    return Chat(
        loaded.model,
        loaded.processor,
        loaded.name,
        origin=loaded.origin,
        quantize=loaded.quantize,
        lighter=loaded.lighter,
        generators=Generators(from_environment() | (generators or {})),
    )
