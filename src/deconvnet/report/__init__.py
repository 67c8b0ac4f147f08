"""What people look at: figures, tables, pages and the site. Draws and writes; computes no result. Imports `config` to
`claims`.
"""
