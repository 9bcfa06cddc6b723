"""Keys of the section `trainer`: how a model is trained."""

from dataclasses import dataclass
from functools import partial

from csgcnn.config.settings.setting import setting

device_setting = partial(
    setting,
    "auto",
    "auto, cpu, cuda or cuda:N; auto is the GPU if there is one.",
    effect="execution",
)
workers_setting = partial(
    setting,
    None,
    "Processes that build graphs.",
    at_least=1,
    at_most=10_000,
    null="one per core",
    effect="execution",
)


@dataclass(slots=True)
class TrainerSettings:
    """Describe how a model is trained."""

    max_epochs: int = setting(
        200,
        "Passes over the training rows; 0 only with head=gp or head=svr.",
        at_least=0,
        resumable=True,
        averaged=False,
    )
    batch_size: int = setting(64, "Crystals per training step.", at_least=1)
    patience: int | None = setting(
        None,
        "Epochs without improvement after which training stops.",
        at_least=1,
        null="never stop early",
        resumable=True,
        averaged=False,
    )
    refit: bool = setting(
        False,
        "Train again on training and validation rows, for as many steps as led to the best epoch.",
    )
    grad_clip: float | None = setting(
        1.0, "Largest norm of the gradient of all trained parameters.", above=0, null="no limit"
    )
    ema: float | None = setting(
        0.99,
        "Decay of the exponential moving average of the weights; the average is validated and "
        "kept.",
        at_least=0,
        below=1,
        null="no average",
    )
    precision: str = setting(
        "float32",
        "Number format of the forward pass; bfloat16 uses autocast.",
        choices=("float32", "bfloat16"),
    )
    device: str = device_setting()
    threads: int | None = setting(
        None,
        "CPU threads of torch.",
        at_least=1,
        at_most=10_000,
        null="the cores available to this process",
        effect="execution",
    )
    progress: bool = setting(True, "Show progress.", effect="execution")
    figures: bool = setting(True, "Draw the figures of a finished run.", effect="execution")
    workers: int | None = workers_setting()
    resident_gib: float | None = setting(
        None,
        "Largest size of graphs in memory; larger ones stay in files, and rows are shuffled in "
        "windows.",
        unit="GiB",
        above=0,
        null="1 on the CPU, half of the memory of a GPU",
    )
    store_embeddings: bool = setting(
        True,
        "Store embeddings of at most 5,000 training crystals in best.ckpt, for the nearest "
        "training crystals of predictions.",
        effect="execution",
    )
    learn_task_weights: bool = setting(
        False,
        "Learn the weights of several targets (Kendall et al., CVPR 2018); not with "
        "loss=gaussian or laplace.",
    )
    max_minutes: float | None = setting(
        None,
        "Time after which the run is saved and ends with exit code 75.",
        unit="min",
        above=0,
        null="no limit",
        effect="execution",
    )
    checkpoint_every: float = setting(
        10.0, "Time between two checkpoints.", unit="s", at_least=0, effect="execution"
    )
    keep_last: int = setting(
        0, "Older checkpoints to keep beside last.ckpt.", at_least=0, effect="execution"
    )
    max_skipped: int = setting(
        0,
        "Batches without a finite loss or gradient to skip before the run fails.",
        at_least=0,
        resumable=True,
    )
    deterministic: bool = setting(
        False, "Use deterministic algorithms on a GPU; they are slower.", read_by="device=auto,cuda"
    )
    compile: bool = setting(
        False, "Compile the training step with torch.compile; needs a C++ compiler.", resumable=True
    )
    cuda_graphs: bool = setting(
        True,
        "Record training steps on a GPU as CUDA graphs and replay them.",
        resumable=True,
        read_by="device=auto,cuda",
    )
    freeze_body: bool = setting(False, "Train the head only; requires init_from.")
    layer_decay: float = setting(
        1.0,
        "Factor of the learning rate per stage of the network, from the head to the input.",
        above=0,
        at_most=1,
    )
