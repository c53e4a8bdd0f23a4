"""General helpers: argument checks, files, downloads, tables."""
