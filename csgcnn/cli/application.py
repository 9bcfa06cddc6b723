"""Run the commands that have a configuration: `csgcnn train`, `benchmark`, `predict`, ..."""

import argparse
import importlib
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from csgcnn.cli.messages import format_error, print_error, print_hydra_error
from csgcnn.cli.overrides import canonical, opted_in, resumed
from csgcnn.cli.spelling import HYDRA_COMPLETION, USE_INSTALL_COMPLETION
from csgcnn.commands.job import Job
from csgcnn.config.compose import hydra_session
from csgcnn.config.given import check_hydra_keys, given_keys, keys_of_files
from csgcnn.config.locations import CONF
from csgcnn.config.paths import user_path
from csgcnn.config.plugins import check_opt_in, plugins_loaded
from csgcnn.config.settings.commands import TRAINING_COMMANDS
from csgcnn.config.targets import plugins_allowed
from csgcnn.config.user_files import user_folders
from csgcnn.config.validate import validate
from csgcnn.errors import AbortError, ConfigError, FailedJobError, UserError

# Checks a configuration and its node `hydra`.
Check = Callable[[DictConfig, DictConfig], None]


def run_application(command: str, arguments: Sequence[str]) -> int:
    """Compose the configuration of a command and run it, or print what the flags ask for.

    Args:
        command: Name of the command.
        arguments: Arguments that follow it.

    Returns:
        The exit code.

    Raises:
        SystemExit: The command failed, or a flag is wrong.
    """
    # A full disk must not flood the terminal through train.log.
    logging.raiseExceptions = False
    failures: list[str] = []
    try:
        given = canonical(command, resumed(arguments) if command == "train" else arguments)
        parser = _make_parser(command)
        options = parser.parse_args(given)
        plugins = opted_in(arguments)
        # --help lists the keys of permitted classes.
        with plugins_allowed(plugins):
            _run(command, parser, options, plugins, failures)
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, FailedJobError):
            return print_error(command, error)
        if not failures and not isinstance(error, FailedJobError):
            # Hydra refused the command line before any job.
            return print_hydra_error(command, error, arguments)
        # A job in another process failed.
        failures = failures or [str(error)]
    for failure in failures:
        print(f"csgcnn {command} {failure}", file=sys.stderr)
    return 1 if failures else 0


def _make_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser of Hydra's flags, without the completion of Hydra in the help."""
    parser = argparse.ArgumentParser(
        f"csgcnn {command}",
        parents=[get_args_parser()],
        add_help=False,
        conflict_handler="resolve",
    )
    parser.add_argument(*HYDRA_COMPLETION, action="store_true", help=USE_INSTALL_COMPLETION)
    return parser


def _make_job(
    command: str, plugins: Sequence[str], failures: list[str], check: Check
) -> Callable[[DictConfig], Any]:
    """Return the function that Hydra calls with the configuration of each job.

    A launcher may call it in another process. Failed jobs of a multirun are added to `failures`.
    The configuration of a single run is checked before its folder is created.
    """

    def run_job(cfg: DictConfig) -> Any:
        is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        trial = HydraConfig.get().sweeper.get("trial")
        name = " ".join(HydraConfig.get().overrides.task) if trial is None else f"trial {trial}"
        try:
            with plugins_loaded(plugins):
                if is_sweep:
                    check(cfg, cast(DictConfig, HydraConfig.get()))
                function = command.replace("-", "_")
                module = importlib.import_module(f"csgcnn.commands.{function}")
                arguments = [Job.of_hydra()] if command in TRAINING_COMMANDS else []
                result = getattr(module, function)(cfg, *arguments)
        except AbortError as error:
            raise SystemExit(print_error(command, cast(Exception, error.__cause__))) from error
        except Exception as error:
            if is_sweep:
                failure = f"{name}: {format_error(error)}"
                # A search reports failed trials and continues.
                if trial is None:
                    failures.append(failure)
                # Launchers and sweepers keep account of failed jobs.
                raise FailedJobError(failure) from error
            _end(command, error)
        if command in ("predict", "embed", "explain", "select", "build") and result:
            if not is_sweep:
                raise SystemExit(result)
            failures.append(f"{name}: not every structure could be used")
        return result

    return run_job


def _run(
    command: str,
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    plugins: Sequence[str],
    failures: list[str],
) -> None:
    """Do what the flags ask for; without any, run the job."""
    _check_flags(options)
    overrides = options.overrides
    with ExitStack() as stack:
        own = folders = [user_path(options.config_dir)] if options.config_dir else []
        name = options.config_name or command
        if folders:
            folders = stack.enter_context(user_folders(folders[0], name, command))
        path = user_path(options.config_path) if options.config_path else CONF
        session = hydra_session(command, config_path=path, config_dirs=folders, overrides=overrides)
        hydra = stack.enter_context(session)
        if options.help:
            from csgcnn.cli.help import help_text, options_of

            cfg = hydra.compose_config(name, overrides, RunMode.RUN)
            print(help_text(command, cfg, options_of(hydra, cfg)))
        elif options.hydra_help:
            hydra.hydra_help(name, parser, options)
        elif options.cfg:
            hydra.show_cfg(name, overrides, options.cfg, options.package, options.resolve)
        elif options.info:
            hydra.show_info(options.info, name, overrides)
        else:
            check = _checker(command, plugins, own, name)
            job = _make_job(command, plugins, failures, check)
            cfg = _composed(hydra, name, overrides, options.multirun)
            is_sweep = cfg.hydra.mode == RunMode.MULTIRUN
            _check_place(overrides, is_sweep)
            if is_sweep:
                hydra.multirun(config_name=name, task_function=job, overrides=overrides)
                return
            with plugins_loaded(plugins):
                _check_before(cfg, check)
            _run_once(hydra, name, cfg, job)


def _run_once(hydra: Hydra, name: str, cfg: DictConfig, job: Callable[[DictConfig], Any]) -> None:
    """Run a job as `Hydra.run` does, which would compose its configuration once more."""
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=name)
    context = HydraContext(hydra.config_loader, callbacks)
    result = run_job(job, cfg, "hydra.run.dir", None, context)
    callbacks.on_run_end(config=cfg, config_name=name, job_return=result)
    # It raises the error of a job that failed.
    _ = result.return_value


def _check_place(overrides: Sequence[str], is_sweep: bool) -> None:
    """Check that overrides of the node `hydra` are those of one run, or of a multirun."""
    for name in given_keys(overrides):
        if is_sweep and name == "hydra.run.dir":
            raise ConfigError(f"{name} has no effect on a multirun; write hydra.sweep.dir=FOLDER")
        of_sweeps = ("hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher")
        if not is_sweep and name.startswith(of_sweeps):
            raise ConfigError(f"{name} has no effect without --multirun; omit it")


def _checker(command: str, plugins: Sequence[str], folders: Sequence[Path], name: str) -> Check:
    """Return a function that checks a configuration, given it and its node `hydra`."""

    def check(cfg: DictConfig, node: DictConfig) -> None:
        check_opt_in(cfg.plugins, plugins)
        check_hydra_keys(node.overrides.hydra)
        typed, of_files = given_keys(node.overrides.task), keys_of_files(node, folders, name)
        if node.mode == RunMode.MULTIRUN:
            # Keys of a sweep over targets are read by some of its jobs.
            typed, of_files = [], [*typed, *of_files]
        validate(cfg, command, typed, of_files)

    return check


def _check_before(cfg: DictConfig, check: Check) -> None:
    """Check a configuration with its node `hydra` before the folder of the run is created."""
    state = HydraConfig.instance()
    before = state.cfg
    # Values may refer to the node.
    state.set_config(cfg)
    try:
        own = OmegaConf.masked_copy(cfg, [key for key in map(str, cfg) if key != "hydra"])
        check(own, cfg.hydra)
    finally:
        state.cfg = before


def _check_flags(options: argparse.Namespace) -> None:
    flags = ("run", "multirun", "cfg", "info")
    given = [f"--{name.replace('_', '-')}" for name in flags if getattr(options, name)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them only")
    if options.resolve and not options.cfg:
        raise ConfigError("--resolve needs --cfg")
    if options.experimental_rerun:
        raise ConfigError("--experimental-rerun is not supported")


def _composed(
    hydra: Hydra, config_name: str, overrides: list[str], is_multirun: bool
) -> DictConfig:
    """Compose the configuration, and add `hydra.mode` to it and to the overrides."""
    mode = RunMode.MULTIRUN if is_multirun else RunMode.RUN
    cfg = hydra.compose_config(config_name, overrides, mode, validate_sweep_overrides=False)
    if cfg.hydra.mode is None or (is_multirun and cfg.hydra.mode == RunMode.RUN):
        cfg.hydra.mode = mode
        for listed in (overrides, cfg.hydra.overrides.hydra):
            listed.append(f"hydra.mode={mode.name}")
    if cfg.hydra.mode == RunMode.RUN:
        parsed = OverridesParser.create().parse_overrides(overrides)
        ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
    return cfg


def _end(command: str, error: Exception) -> NoReturn:
    code = print_error(command, error)
    if command in TRAINING_COMMANDS:
        _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))
    raise SystemExit(code) from None


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a run that was refused before it wrote anything but its log."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    logs = [f"{command}.log" for command in TRAINING_COMMANDS]
    if any(path.stat().st_size for path in files if path.name not in logs):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents:
        # The folder of all runs is ours, and those within it.
        if Path.cwd() / "runs" in (parent, *parent.parents):
            with suppress(OSError):
                parent.rmdir()
