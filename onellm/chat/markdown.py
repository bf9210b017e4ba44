"""A conversation as Markdown, for people to read and keep."""

from pathlib import Path

from onellm.modalities import MODALITIES


def as_markdown(messages: list[dict], title: str, model: str) -> str:
    """Write a conversation.

    Args:
        messages: chat messages; of a file its name is written.
        title: the first line.
        model: what the model is called, where a message does not say.

    Returns:
        The text.
    """
    pieces = [f"# {title}"]
    for message in messages:
        pieces.append(f"## {'You' if message['role'] == 'user' else message.get('name') or model}")
        files = [part for part in message["content"] if part["type"] != "text" and part.get("path")]
        if files:
            pieces.append("\n".join(f"* {MODALITIES[file['type']].title}: {Path(file['path']).name}" for file in files))
        pieces += [part["text"] for part in message["content"] if part.get("text")]
        pieces += [part["error"] for part in message["content"] if part.get("error")]
    return "\n\n".join(pieces) + "\n"
