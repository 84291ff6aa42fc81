"""Maps, posts and their captions as pictures."""
