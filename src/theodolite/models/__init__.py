"""Models: families, prompts, and the small LLaVA of the tours. Importing this registers the vision towers."""

from theodolite.models import cells_tower as cells_tower
from theodolite.models import conv_tower as conv_tower
from theodolite.models import lite0_tower as lite0_tower
