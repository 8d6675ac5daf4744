"""Numbers as people read them: ``migrate.number_text``, by the name that the commands know."""

from __future__ import annotations

from migrate.number_text import bytes_words, count_words, duration_words, moment_words, things

__all__ = ["bytes_words", "count_words", "duration_words", "moment_words", "things"]
