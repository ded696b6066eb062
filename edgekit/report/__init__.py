"""Output for people: the HTML page, its figures, and tables for the terminal."""
