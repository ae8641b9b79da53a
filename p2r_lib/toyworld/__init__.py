"""A world of moving coloured shapes, small enough that every fact of a clip is known."""
