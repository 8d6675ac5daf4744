"""Numbers as people read them: ``migrate.words``, by the name that the commands know."""

from __future__ import annotations

from migrate.words import bytes_words, count_words, duration_words, moment_words, things

__all__ = ["bytes_words", "count_words", "duration_words", "moment_words", "things"]
