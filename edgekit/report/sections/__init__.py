"""The parts of a bundle's page, in HTML, a file each."""
