"""decoderbench: which decoder should turn a CNN's features into text, and how sure are we?

`__init__.pyi` lists the public names. Each is imported on first use, so importing the package does not import torch.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
