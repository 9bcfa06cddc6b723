"""Keys of the section `trainer`: how a model is trained."""

from dataclasses import dataclass
from typing import Annotated

from csgcnn.config.settings.setting import Setting

Device = Annotated[
    str, Setting("auto, cpu, cuda or cuda:N; auto is the GPU if there is one.", effect="execution")
]
Workers = Annotated[
    int | None,
    Setting(
        "Processes that build graphs.",
        at_least=1,
        at_most=10_000,
        null="one per core",
        effect="execution",
    ),
]


@dataclass(slots=True)
class TrainerSettings:
    """Describe how a model is trained."""

    max_epochs: Annotated[
        int,
        Setting(
            "Passes over the training rows; 0 only with head=gp or head=svr.",
            at_least=0,
            resumable=True,
            averaged=False,
        ),
    ] = 200
    batch_size: Annotated[int, Setting("Crystals per training step.", at_least=1)] = 64
    patience: Annotated[
        int | None,
        Setting(
            "Epochs without improvement after which training stops.",
            at_least=1,
            null="never stop early",
            resumable=True,
            averaged=False,
        ),
    ] = None
    grad_clip: Annotated[
        float | None,
        Setting(
            "Largest norm of the gradient of all trained parameters.", above=0, null="no limit"
        ),
    ] = 1.0
    ema: Annotated[
        float | None,
        Setting(
            "Decay of the exponential moving average of the weights; the average is validated and "
            "kept.",
            at_least=0,
            below=1,
            null="no average",
        ),
    ] = 0.99
    precision: Annotated[
        str,
        Setting(
            "Number format of the forward pass; bfloat16 uses autocast.",
            choices=("float32", "bfloat16"),
        ),
    ] = "float32"
    device: Device = "auto"
    threads: Annotated[
        int | None,
        Setting(
            "CPU threads of torch.",
            at_least=1,
            at_most=10_000,
            null="the cores available to this process",
            effect="execution",
        ),
    ] = None
    progress: Annotated[bool, Setting("Show progress.", effect="execution")] = True
    figures: Annotated[bool, Setting("Draw the figures of a finished run.", effect="execution")] = (
        True
    )
    workers: Workers = None
    resident_gib: Annotated[
        float | None,
        Setting(
            "Largest size of graphs in memory; larger ones stay in files, and rows are shuffled in "
            "windows.",
            unit="GiB",
            above=0,
            null="1 on the CPU, half of the memory of a GPU",
        ),
    ] = None
    learn_task_weights: Annotated[
        bool,
        Setting(
            "Learn the weights of several targets (Kendall et al., CVPR 2018); not with "
            "loss=gaussian or laplace."
        ),
    ] = False
    max_minutes: Annotated[
        float | None,
        Setting(
            "Time after which the run is saved and ends with exit code 75.",
            unit="min",
            above=0,
            null="no limit",
            effect="execution",
        ),
    ] = None
    checkpoint_every: Annotated[
        float, Setting("Time between two checkpoints.", unit="s", at_least=0, effect="execution")
    ] = 10.0
    keep_last: Annotated[
        int, Setting("Older checkpoints to keep beside last.ckpt.", at_least=0, effect="execution")
    ] = 0
    max_skipped: Annotated[
        int,
        Setting(
            "Batches without a finite loss or gradient to skip before the run fails.",
            at_least=0,
            resumable=True,
        ),
    ] = 0
    deterministic: Annotated[
        bool,
        Setting(
            "Use deterministic algorithms on a GPU; they are slower.", read_by="device=auto,cuda"
        ),
    ] = False
    compile: Annotated[
        bool,
        Setting(
            "Compile the training step with torch.compile; needs a C++ compiler.", resumable=True
        ),
    ] = False
    cuda_graphs: Annotated[
        bool,
        Setting(
            "Record training steps on a GPU as CUDA graphs and replay them.",
            resumable=True,
            read_by="device=auto,cuda",
        ),
    ] = True
    freeze_body: Annotated[bool, Setting("Train the head only; requires init_from.")] = False
    layer_decay: Annotated[
        float,
        Setting(
            "Factor of the learning rate per stage of the network, from the head to the input.",
            above=0,
            at_most=1,
        ),
    ] = 1.0
