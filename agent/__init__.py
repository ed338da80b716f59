"""The model: where it comes from, how it answers, how it learns and how it is measured."""
