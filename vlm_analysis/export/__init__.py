"""Export: checkpoints with their proof, masks in other formats, model cards, stories and reports."""
