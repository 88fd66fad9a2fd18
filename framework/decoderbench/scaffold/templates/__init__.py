"""Templates for `decoderbench new`: components that run unchanged; `new` copies and renames them."""
