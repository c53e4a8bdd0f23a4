"""Applications built on the taggers: recipes, probing, whole libraries, benchmarks, the web page."""
