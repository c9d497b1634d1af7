"""loadkit: what prefix-cache hit rate will production really see, and does staging look like it?"""

__version__ = "0.1.0"
