"""What the rows of a store hold, whichever engine keeps them: the encodings, and what memory knows of them."""
