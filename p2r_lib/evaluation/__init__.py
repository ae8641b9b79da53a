"""Answers from a model, and what they show: accuracy, sufficiency, format, mismatch."""
