"""What all pages share: session, jobs on screen, pickers, words."""
