"""What every command uses while it runs: cancellation, progress, memory, process identity."""
