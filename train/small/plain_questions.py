"""Questions without a file: those that training asks, and others to see what the LLM has kept of itself."""

import random
from itertools import product

# what training asks: every form of every topic
FORMS = (
    "What is {}? Answer in one sentence.",
    "In one sentence, why is {} useful?",
    "Give me one tip about {}.",
    "Write one short sentence about {}.",
    "Name one book or film about {}.",
    "Which word comes to mind first when you think of {}?",
    "Is {} important? Answer briefly.",
    "What question would you ask an expert on {}?",
    "Explain {} to a child in one sentence.",
    "What should a beginner know about {}? Be brief.",
)
TOPICS = (
    "gardening", "democracy", "swimming", "recycling", "photography", "chess", "sleep", "money", "electricity",
    "poetry", "teamwork", "cheese", "the Roman Empire", "public transport", "mathematics", "friendship",
    "knitting", "the internet", "vaccination", "camping", "jazz", "architecture", "honesty", "bread",
    "the ocean", "homework", "cycling", "gravity", "marketing", "volcanoes", "meditation", "spelling",
)  # fmt: skip

# what an evaluation asks, on other topics
HELD_OUT = (
    "What is the capital of France?",
    "How many days are there in a leap year?",
    "Write a haiku about autumn leaves.",
    "Translate 'good morning' into Spanish.",
    "What is 17 plus 25?",
    "Who wrote Romeo and Juliet?",
    "List three primary colours.",
    "How do I boil an egg?",
    "What does a heart surgeon do?",
    "Tell me a joke about penguins.",
    "What is the opposite of generous?",
    "Suggest a name for a small bakery.",
    "Why is the sky blue?",
    "Summarise the story of Cinderella.",
    "How far away is the moon?",
    "Write an email asking my landlord to repair the heating.",
    "What language is spoken in Brazil?",
    "Give me a recipe for pancakes.",
    "How does a refrigerator keep food cold?",
    "Who was the first person to walk on the moon?",
    "Correct this sentence: She go to school yesterday.",
    "What is the largest planet in the solar system?",
    "How can I fall in love with running?",
    "Write a Python function that adds two numbers.",
    "What are the symptoms of a cold?",
    "Name four musical instruments.",
    "What happened in 1969?",
    "Is a tomato a fruit or a vegetable?",
    "Describe a perfect holiday in the mountains.",
    "What rhymes with light?",
    "How do bees make honey?",
    "Explain what a variable is in programming.",
    "What should I wear to a job interview?",
    "Which is heavier, a kilogram of iron or a kilogram of feathers?",
    "Write the first line of a ghost story.",
    "What is the boiling point of water in Celsius?",
    "How do I remove a coffee stain from a shirt?",
    "Who painted the Mona Lisa?",
    "What are three ways to save water at home?",
    "Finish the sentence: The early bird",
    "What is photosynthesis?",
    "How many legs does a spider have?",
    "Recommend a hobby for a rainy day.",
    "What is the difference between a lake and a river?",
    "Say thank you in German, Italian and Japanese.",
    "Why do cats purr?",
    "What is a synonym for happy?",
    "How long does it take light from the sun to reach us?",
    "Write a birthday wish for my grandmother.",
    "Hello! How are you today?",
)


def training_questions(count: int, seed: int = 0) -> list[str]:
    """Choose questions to train on; none is held out."""
    pairs = list(product(FORMS, TOPICS))
    return [form.format(topic) for form, topic in random.Random(seed).sample(pairs, min(count, len(pairs)))]
