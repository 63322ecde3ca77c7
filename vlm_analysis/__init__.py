"""Which decoder layers of a vision-language model can you do without? The library behind the Strata dashboard."""
