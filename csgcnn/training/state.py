"""Where the random numbers of a training stand, to go on with the same ones."""

from collections.abc import Mapping

import torch
from torch import Tensor

from csgcnn import distributed


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators of this process, by the kind of device."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on with the random numbers of each process, `states` [n_processes, n_bytes]; of others if they are others."""
    rank = distributed.rank()
    own = {
        name: all_[min(rank, len(all_) - 1)].clone() for name, all_ in states.items()
    }  # torch wants its own storage
    torch.set_rng_state(own["cpu"])
    if device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], device)
    if rank >= len(states["cpu"]):
        torch.manual_seed(int(torch.randint(2**62, ())) + rank)
