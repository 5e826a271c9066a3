"""Sound: windows for audio embeddings and speech for transcripts (a later issue). Found by name only until then."""
