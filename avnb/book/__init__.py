"""What readers see: figures, tables and widgets of the notebooks, and the book that holds them.

| plots:      the look of all figures, and what more than one notebook draws
| tables:     what more than one notebook tabulates
| galleries:  retrieved videos, to look at and to listen to
| parameters: typed parameters of a notebook; a misspelt one is an error
| build:      running notebooks, staging what they left behind, building the pages
"""
