"""Pages for people: what a bundle holds, how complete it is, and how to check it; and by which links it is fetched."""
