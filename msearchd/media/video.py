"""Moving pictures: scenes, frames and their sound in one decode pass (a later issue). Found by name only until then."""
