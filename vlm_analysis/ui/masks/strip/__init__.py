"""The strip: the mask editor, a component in the browser, and what it is given."""
