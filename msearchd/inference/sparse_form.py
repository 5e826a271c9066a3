"""What is kept of a sparse vector. Both sides import it: engines cut by it, fingerprints name it.

A learned sparse model lights up 100 to 300 words of a passage, most of them faintly. The 256 heaviest are kept: cutting
passages to fewer (64 to 128) still keeps retrieval within 2 % (Lassance et al., "A Static Pruning Study on Sparse Neural
Retrievers", SIGIR 2023), so this costs nothing that can be seen and bounds a passage to 2 KB, whatever a model does. A
weight below 1/2048 of the heaviest is less than what float16, in which the cache keeps them, makes of that one.
"""

from __future__ import annotations

from typing import Final

MOST_ENTRIES: Final = 256
LEAST_SHARE: Final = 1 / 2048
#: Part of the fingerprint of every sparse space: another way of cutting is another space.
FORM: Final = f"sparse 1, {MOST_ENTRIES} entries"
