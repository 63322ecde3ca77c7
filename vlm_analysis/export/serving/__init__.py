"""Whether other engines serve an exported checkpoint: rules over lists that were read from their released code."""
