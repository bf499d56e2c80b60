"""One file per noun; each has a `router` whose functions are short."""
