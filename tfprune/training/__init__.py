"""The host in Keras: wrappers, prune and strip, callbacks, saving."""

from tfprune.method import LISTENERS, methods
from tfprune.training import saving
from tfprune.training.callback import PruningCallback
from tfprune.training.compacting import Choice, compact, compaction
from tfprune.training.host import check_model, is_pruned, prune, pruned_layers, strip
from tfprune.training.loading import load_model
from tfprune.training.pruner import Pruner
from tfprune.training.wrappers import wrapper_of

__all__ = [
    "Choice",
    "Pruner",
    "PruningCallback",
    "check_model",
    "compact",
    "compaction",
    "is_pruned",
    "load_model",
    "prune",
    "pruned_layers",
    "strip",
]

saving.install()
for _method in methods():
    wrapper_of(_method)
LISTENERS.append(wrapper_of)
