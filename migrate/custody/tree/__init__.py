"""The Merkle tree over a bundle's items, and proofs from it."""
