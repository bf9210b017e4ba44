"""Questions and answers about labelled files, for the objective "chat"."""

import random

import torch

WORDS = {
    "image": ("picture", "The picture shows {}.", "What is in the picture?"),
    "video": ("video", "The video shows {}.", "What is in the video?"),
    "audio": ("sound", "The sound is {}.", "What do you hear?"),
    "point": ("point cloud", "The point cloud shows {}.", "What is this object?"),
    "fmri": ("brain scan", "The person is looking at {}.", "What is the person looking at?"),
    "imu": ("motion recording", "The person is {}.", "What is the person doing?"),
    "depth": ("depth map", "The depth map shows {}.", "What is in the depth map?"),
    "normal": ("normal map", "The normal map shows {}.", "What is in the normal map?"),
}
COMMON = [
    "What is this?",
    "What do you see?",
    "What is it?",
    "Describe this.",
    "Describe the {} in one sentence.",
]
COMMON += [
    "What does the {} show?",
    "Tell me about this {}.",
    "Please describe the {}.",
    "What is the main thing?",
]
OWN = {
    "image": [
        "What is this a picture of?",
        "What's in this image?",
        "What is shown in the photo?",
        "Which object is this?",
    ],
    "video": ["What happens in the video?", "What is shown in the clip?", "What's in this video?"],
    "audio": ["What is this sound?", "What do I hear?", "What's making this sound?", "Describe the sound."],
    "point": [
        "What object is this?",
        "What is this 3D shape?",
        "What do these points show?",
        "What's this model?",
    ],
    "fmri": [
        "What was the person seeing?",
        "What does the person see?",
        "Describe the scene based on fMRI data.",
    ],
    "imu": [
        "What is the person doing?",
        "Describe the motion.",
        "Which activity is this?",
        "How does the person move?",
    ],
    "depth": ["What object is in the depth map?", "What is in front of the camera?", "Which object is this?"],
    "normal": ["What object is in the normal map?", "What is this shape?", "Which object is this?"],
}
SHORT = [
    "Answer in one word.",
    "Answer the question using a single word or phrase.",
    "One word, please.",
    "In one word:",
]
WHETHER = {
    "image": ["Is this {}?", "Is it {}?", "Does the {kind} show {}?", "Is there {} in the {kind}?"],
    "audio": ["Is this {}?", "Is it {}?", "Is this the sound of {}?", "Do you hear {}?", "Can you hear {}?"],
    "imu": ["Is the person {}?", "Is this person {}?"],
    "fmri": ["Is the person looking at {}?", "Does the person see {}?"],
}
IT = dict.fromkeys(WORDS, "it is") | {"imu": "the person is"}
UNCOUNTED = "water music speech food rain thunder wind silence applause laughter fire hay coffee soup static noise"


def with_article(name: str, modality: str) -> str:
    """Set "a" or "an" before a noun phrase where English wants one."""
    last = name.split()[-1]
    if (
        modality == "imu"
        or last in UNCOUNTED.split()
        or last.endswith("ing")
        or last.endswith("s")
        and last[-2:] != "ss"
    ):
        return name
    if name.split()[0] in ("a", "an", "the"):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def full_answer(text: str, modality: str) -> str:
    """Say a text ("dog, German shepherd") as a sentence of the modality."""
    return WORDS[modality][1].format(", ".join(with_article(part, modality) for part in text.split(", ")))


def question(modality: str, choose: random.Random) -> str:
    """Choose an open question."""
    pool = OWN[modality] + [WORDS[modality][2]] if choose.random() < 0.6 else COMMON
    return choose.choice(pool).format(WORDS[modality][0])


def whether(modality: str, name: str, choose: random.Random | None = None) -> str:
    """Ask whether a file shows a thing; in the first form, or in one by chance."""
    forms = WHETHER.get(modality, WHETHER["image"])
    form = forms[0] if choose is None else choose.choice(forms)
    return form.format(with_article(name, modality), kind=WORDS[modality][0])


def verdict(modality: str, text: str, other: str, choose: random.Random) -> tuple[str, str]:
    """Make a question to be answered with yes or no, either half of the time."""
    names = text.split(", ")
    wrong = other.split(", ")[0]
    yes = choose.random() < 0.5
    if not yes and wrong not in names:
        return whether(modality, wrong, choose), f"No, {IT[modality]} {with_article(names[0], modality)}."
    name = choose.choice(names)
    return whether(modality, name, choose), f"Yes, {IT[modality]} {with_article(name, modality)}."


def exchange(modality: str, text: str, other: str, choose: random.Random) -> tuple[str, str]:
    """Make one question and its answer about one file.

    Args:
        modality: of the file.
        text: what it is.
        other: what another file of the modality is, for questions to be answered with no.
        choose: source of chance.
    """
    basic = text.split(", ")[0]
    dice = choose.random()
    if dice < 0.15:
        return f"{question(modality, choose)} {choose.choice(SHORT)}", basic[0].upper() + basic[1:]
    if dice < 0.6:
        return verdict(modality, text, other, choose)
    return question(modality, choose), full_answer(text, modality)


def both(modality: str, second: str, choose: random.Random) -> str:
    """Ask about two files at once."""
    first, then = WORDS[modality][2], WORDS[second][2]
    if choose.random() < 0.6:
        if modality == second:
            return choose.choice(["What are these?", "What are these two?", "What do they show?"])
        short = {"image": "in the picture", "video": "in the video"}
        if modality in short and then.startswith("What is in"):
            return f"What is {short[modality]} and {then.removeprefix('What is ')}"
        return f"{first[:-1]} and {then[0].lower()}{then[1:]}"
    return choose.choice([f"{first} {then}", "What are these?", "Describe both."])


class Conversations:
    """Conversations about one or two files of the small corpus.

    Args:
        sources: where files are drawn from.
        weights: share of each.
    """

    def __init__(self, sources: list, weights: list[float]):
        self.sources, self.weights = sources, torch.tensor(weights)

    def _file(self, generator: torch.Generator) -> tuple[dict, str, str]:
        """Draw a file part with its features, its text and another text of the source."""
        source = self.sources[int(torch.multinomial(self.weights, 1, generator=generator))]
        features, texts = source.draw(2, generator)
        return {"type": source.kind, "features": features[0]}, texts[0], texts[1]

    def _messages(self, generator: torch.Generator, choose: random.Random, later: bool) -> list[dict]:
        part, text, other = self._file(generator)
        modality = part["type"]
        if choose.random() < 0.2:  # two files in one question
            second, text2, _ = self._file(generator)
            content = [part, second, {"type": "text", "text": both(modality, second["type"], choose)}]
            answer = f"{full_answer(text, modality)} {full_answer(text2, second['type'])}"
            return _turn(content, answer)
        asked, answer = exchange(modality, text, other, choose)
        messages = _turn([part, {"type": "text", "text": asked}], answer)
        if later:  # about the same file, or about a new one
            if choose.random() < 0.5:
                asked, answer = exchange(modality, text, other, choose)
                messages += _turn([{"type": "text", "text": asked}], answer)
            else:
                second, text2, other2 = self._file(generator)
                asked, answer = exchange(second["type"], text2, other2, choose)
                messages += _turn([second, {"type": "text", "text": asked}], answer)
        return messages

    def draw(self, count: int, generator: torch.Generator) -> list[list[dict]]:
        """Draw conversations: chat messages whose file parts hold features."""
        choose = random.Random(generator.initial_seed())
        later = choose.random() < 0.2  # a whole batch with later turns, since a batch is as long as its longest row
        return [self._messages(generator, choose, later) for _ in range(count)]


def _turn(content: list[dict], answer: str) -> list[dict]:
    return [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
