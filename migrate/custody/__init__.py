"""Custody: signatures, proofs and the log of who did what to a bundle.

Everything lies under ``sig/`` next to the bundle, in formats that other tools check.
"""
