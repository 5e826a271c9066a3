"""ffprobe: streams, duration, rotation and tags of audio and video (a later issue)."""
