"""Several runs beside each other: what their reports say, a page that shows it, and a bake-off that makes them."""
