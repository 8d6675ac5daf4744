"""What all commands share: options, session, output, progress."""
