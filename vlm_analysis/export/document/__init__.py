"""An Answer told in steps, as one HTML file that is a report to read and print, and a presentation to click through."""
