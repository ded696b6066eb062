"""What people read: the HTML page, its figures, tables for the terminal."""
