"""Training: recipes, data, evaluation. Uses the same processor and model as the app and is imported by nobody."""
