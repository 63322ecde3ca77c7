"""`python -m vlm_analysis` is the command `strata`."""

from vlm_analysis.cli import main

if __name__ == "__main__":
    main()
