"""Masks as other tools write them: a file for each shape, and `recognise` puts them in order."""
