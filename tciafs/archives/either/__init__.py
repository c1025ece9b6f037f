"""Two archives that hold the same, as one: what one lacks or cannot give comes from the other."""
