"""ffmpeg as a limited child: argv only, streamed frames and PCM, killed and reaped on every path out (a later
issue).
"""
