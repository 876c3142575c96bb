"""theodolite: surveys of vision-language models, and training that extends what they map.

`__init__.pyi` lists the public names, each with its module; they are loaded when first used, so that no torch is imported before.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
