"""The page Depth or width: which kind of edit keeps most at one budget."""
