"""Tables of which the destination refuses something: made without that, which is named."""
