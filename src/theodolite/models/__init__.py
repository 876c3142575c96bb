"""Vision-language models: families, prompts, forward passes, export. Importing this package registers its vision towers and connectors."""

from theodolite.models.exported import cells_tower as cells_tower
from theodolite.models.exported import conv_tower as conv_tower
from theodolite.models.exported import lite0_tower as lite0_tower
from theodolite.models.load import adapted_classes

adapted_classes("llava")
