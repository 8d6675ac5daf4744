"""Tests of runs by several machines."""
