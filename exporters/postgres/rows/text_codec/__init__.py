"""The text of composite, temporal and binary values, and the Arrow columns that hold them."""
