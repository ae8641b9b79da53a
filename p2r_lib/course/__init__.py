"""What the notebooks, the slides and the report are drawn with."""
