"""Directories for copies: one that is in use stays, whoever sweeps beside."""

from concurrent.futures import ThreadPoolExecutor

from exporters.sqlite.files.backup import scratch_directory

THREADS, ROUNDS = 4, 150


def test_a_directory_is_not_taken_for_that_of_a_killed_run_by_others_that_begin():
    def lost_directories(_):
        lost = 0
        for _ in range(ROUNDS):
            with scratch_directory() as directory:
                lost += not directory.exists()
        return lost

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(lost_directories, range(THREADS))) == [0] * THREADS
