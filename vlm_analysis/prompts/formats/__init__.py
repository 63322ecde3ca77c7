"""How others write images with questions: one file a format, found by what the source holds, never by a guess."""
