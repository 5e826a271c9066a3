"""From bytes to text and samples: type detection, extraction, OCR, in a worker process with limits."""
