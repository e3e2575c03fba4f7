"""Which of several processes this is, as whoever started it says."""

import os


def world_size() -> int:
    """How many processes were started together, by `WORLD_SIZE` of the environment; 1 where that is no number."""
    text = os.environ.get("WORLD_SIZE", "1").strip()
    return max(1, int(text)) if text.isdecimal() and len(text) < 10 else 1
