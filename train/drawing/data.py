"""What people say who want something drawn, and what others say, for a model that draws."""

import random

from train.small.items import read_lines
from train.small.questions import with_article

ASKED = [
    "Draw {}.",
    "Draw {}, please.",
    "Please draw {}.",
    "Draw me {}.",
    "Can you draw {}?",
    "Could you draw {} for me?",
    "Make a picture of {}.",
    "Make me a picture of {}, please.",
    "Create an image of {}.",
    "Show me a drawing of {}.",
    "I want a picture of {}.",
    "A picture of {}, please.",
    "Generate a picture of {}.",
    "Hi! Please draw me {}.",
]
ASKED_HELD_OUT = [
    "Paint me {}, please.",
    "Can you sketch {}?",
    "I would like an image of {}.",
    "Would you please make a drawing of {} for my friend?",
    "Let me see a picture of {}.",
]
TALK = [  # nothing is to be drawn; whatever is answered, no picture begins
    "What is {}?",
    "Tell me about {}.",
    "Where can I find {}?",
    "What does {} look like?",
    "Do you like {}?",
    "Write a poem about {}.",
    "Write a short story about {}.",
    "How much does {} cost?",
    "I saw {} today.",
    "How do you spell {}?",
    "Why would somebody want {}?",
    "What is the difference between {} and a stone?",
    "Describe {} in one sentence.",
    "Is {} bigger than a mouse?",
    "Who drew the first picture of {}?",
    "How do I draw {}?",
    "Explain how to paint {}.",
    "{}",
]
CHAT = [
    "Hello!",
    "Hi, how are you?",
    "What is your name?",
    "What is the capital of France?",
    "Who are you?",
    "What can you do?",
    "Thank you!",
    "Good morning.",
    "What is two plus two?",
    "Tell me a joke.",
    "How is the weather?",
    "Translate 'house' into German.",
    "Write a haiku.",
    "Summarise the story of Romeo and Juliet.",
    "What is a picture?",
    "What is an image?",
    "Who painted the Mona Lisa?",
    "What is the best way to learn drawing?",
    "Please explain photosynthesis.",
    "Can you help me?",
    "Give me a recipe for pancakes.",
    "Make a list of five animals.",
    "Create a plan for my week.",
    "Show me how to tie a knot.",
    "I want to sleep.",
    "Generate a random number.",
    "What is this?",
    "What do you see?",
    "Why is the sky blue?",
    "Write a letter to my boss.",
]
CHAT_HELD_OUT = [
    "What time is it?",
    "Who wrote Hamlet?",
    "Tell me something about cats.",
    "Is a tomato a fruit?",
    "How do I cook rice?",
    "What is the meaning of life?",
    "Write a limerick about a bus.",
    "Name three colours.",
    "Which is faster, a car or a bicycle?",
    "What is painting?",
    "Explain gravity to a child.",
    "Count to ten.",
    "How does a camera work?",
    "Please write a sentence with the word dragon.",
    "What should I draw today?",
    "Make up a name for my dog.",
    "Show me the way to the station.",
    "Do you know any songs?",
    "Give me a synonym for happy.",
    "Where is Berlin?",
]
REPLIES = [
    "I can tell you about that.",
    "That is a good question.",
    "Hello! How can I help you today?",
    "The answer is simple: it depends on what you want.",
    "Here is what I know about it.",
    "Sure, let us begin with the first step.",
]


def named(*splits: str) -> dict[str, str]:
    """Return the drawings that have a name: name -> file."""
    lines = read_lines("drawings")
    return {line["name"]: line["file"] for line in lines if line["name"] and line["split"] in splits}


def asked(name: str, choose: random.Random, held_out: bool = False) -> str:
    """Ask for a drawing."""
    text = choose.choice(ASKED_HELD_OUT if held_out else ASKED).format(with_article(name, "image"))
    return text if held_out else casually(text, choose)


def talk(name: str, choose: random.Random) -> tuple[str, str]:
    """Say something after which nothing is to be drawn, and a reply."""
    text = choose.choice(TALK).format(with_article(name, "image")) if choose.random() < 0.6 else choose.choice(CHAT)
    return casually(text, choose), choose.choice(REPLIES)


def casually(text: str, choose: random.Random) -> str:
    """Write as people do: sometimes without capitals or the last stop."""
    if choose.random() < 0.2:
        text = text.rstrip(".?!")
    return text.lower() if choose.random() < 0.2 else text
