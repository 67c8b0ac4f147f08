"""Files that are written atomically, work spread over cores, and interrupted work that resumes. Knows nothing of images
or networks; imports `config` alone.
"""
