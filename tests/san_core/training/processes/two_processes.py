"""One of the processes that train together in test_distributed: `torchrun ... FOLDER`.

Reads FOLDER/runs.json, a list of settings; process 0 writes what each run came to as NAME-SIZE.pt.
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from san_core.training import loop
from san_core.training.distributed import current_world
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe, tiny_teacher


def train_run(run):
    """What a run came to: its reports, the weights, and how and where it ended."""
    settings = tiny_recipe(run["recipe"], run["words"])
    model = tiny_model(settings)
    rank = current_world().rank
    asked = iter(range(1000))
    reports, states, ended = [], [], ""
    made = loop.fit(
        model,
        tiny_data(mirror=run.get("mirror", True), pit=settings.pit_every > 0),
        settings,
        seed=5,
        device="cpu",
        on_state=states.append,
        evaluate=(lambda _: rank + 0.5) if settings.eval_every else None,
        teacher=tiny_teacher() if settings.w_distill else None,
        stop=(lambda: next(asked) == 3 and rank == 1) if run.get("stops") else None,
    )
    if rank == 1 and "poisoned" in run:
        with torch.no_grad():  # one process alone goes wrong
            model.get_parameter(run["poisoned"]).fill_(float("nan"))
    try:
        reports.extend((r.loss, r.terms, r.score) for r in made)
    except (ValueError, loop.TrainingStopped) as end:
        ended = f"{type(end).__name__}: {end}"
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    place = (states[-1]["epoch"], states[-1]["step"]) if states else None
    return {"reports": reports, "weights": weights, "ended": ended, "place": place}


def main(folder):
    threads, kind = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    try:
        for run in json.loads((folder / "runs.json").read_text()):
            torch.set_default_dtype(getattr(torch, run.get("dtype", "float32")))
            found = train_run(run)
            if current_world().rank == 0:
                torch.save(found, folder / f"{run['name']}-{current_world().size}.pt")
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(kind)


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    main(Path(sys.argv[1]))
    distributed.destroy_process_group()
