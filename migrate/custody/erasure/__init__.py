"""Erasure of a bundle, and the proof of it."""
