"""Models: families, prompts, and the small LLaVA of the tours. Importing this registers the convolutional tower."""

from theodolite.models import conv_tower as conv_tower
