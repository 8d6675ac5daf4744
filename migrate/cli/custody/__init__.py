"""Commands about custody: keys, signatures, holds, grants, receipts, proofs, erasure."""
