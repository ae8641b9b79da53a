"""The `p2r` command. Each subcommand imports what it needs when it runs, so `--help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; a fault of the user's is one line on stderr and exit status 2."""
    parser = _parser()
    options, fields = parser.parse_known_args(arguments)
    if fields and not hasattr(options, "fields"):
        parser.error(f"unrecognized arguments: {' '.join(fields)}")
    options.fields = fields
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        if options.traceback:
            raise
        print(f"p2r {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\np2r {options.command}: interrupted; run it again to continue", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="p2r",
        description="Process-aware video reinforcement fine-tuning: seeing and reasoning apart.",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_quickstart(commands)
    _add_ablate(commands)
    _add_pretrain(commands)
    _add_toy_data(commands)
    _add_training(commands)
    return parser


def _add_quickstart(commands) -> None:
    command = commands.add_parser(
        "quickstart",
        help="the whole method on a CPU: base, data, SFT, GRPO and PA-GRPO, and a report",
        description="Runs every stage on the toy world and writes metrics, figures and a report. "
        "Run it again after an interrupt and it continues where it stopped.",
    )
    command.add_argument("--output", type=Path, default=Path("runs/quickstart"), help="run folder")
    _add_run_options(command)
    command.set_defaults(run=_quickstart)


def _add_ablate(commands) -> None:
    command = commands.add_parser(
        "ablate",
        help="the toy RL stage over seeds and credit settings, with a table of means and spread",
        description="Repeats SFT and the RL stage for each seed and credit setting (the rows of "
        "the paper's Table 2 that concern RL). Finished runs are kept and not run again.",
    )
    command.add_argument("--output", type=Path, default=Path("runs/ablate"), help="run folder")
    command.add_argument("--seeds", type=int, default=5, help="how many seeds (default 5)")
    command.add_argument(
        "--credits",
        nargs="+",
        default=["process", "outcome", "perception", "pooled"],
        metavar="CREDIT",
        help="credit settings to compare (default all four)",
    )
    command.add_argument("--jobs", type=int, default=1, help="runs at a time, one process each")
    _add_run_options(command)
    command.set_defaults(run=_ablate)


def _add_run_options(command) -> None:
    command.add_argument("--recipe", default="tiny-cpu", help="recipe folder or name")
    command.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    command.add_argument("--smoke", action="store_true", help="a minute-long run of every stage")


def _add_pretrain(commands) -> None:
    command = commands.add_parser(
        "pretrain-tiny", help="make the tiny base that ships in data_samples/ again"
    )
    command.add_argument("--output", type=Path, default=Path("runs/tiny-base"), help="folder")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--workers", type=int, default=1, help="processes that render clips")
    command.set_defaults(run=_pretrain)


def _add_toy_data(commands) -> None:
    command = commands.add_parser(
        "toy-data", help="write toy clips and questions in the Video-R1 schema"
    )
    command.add_argument("--output", type=Path, required=True, help="folder to write to")
    command.add_argument("--train", type=int, default=70, help="training questions")
    command.add_argument("--heldout", type=int, default=70, help="held-out questions")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_toy_data)


def _add_training(commands) -> None:
    for name, what in (
        ("sft", "fine-tune a model on annotated responses"),
        ("rl", "reinforce a model: PA-GRPO, GRPO and the settings between"),
    ):
        command = commands.add_parser(
            name,
            help=what,
            allow_abbrev=False,
            usage=f"p2r {name} [--recipe NAME_OR_FILE] [--FIELD VALUE ...]",
            description="Settings come from a YAML recipe and from the command line, which wins. "
            "--help-fields lists them all; --dry_run checks settings, data, judge and hardware.",
        )
        command.set_defaults(run=_train, fields=[])


def _train(options: argparse.Namespace) -> None:
    from p2r_lib.training.run import main as train

    train(options.command, options.fields)


def _quickstart(options: argparse.Namespace) -> None:
    from p2r_lib.course.quickstart import write_quickstart_report
    from p2r_lib.toyworld.experiment import load_recipe, run_quickstart

    recipe = load_recipe(options.recipe, smoke=options.smoke)
    run_quickstart(options.output, recipe, seed=options.seed)
    report = write_quickstart_report(options.output)
    print(f"\nDone. Open {report} in a browser.")


def _ablate(options: argparse.Namespace) -> None:
    from p2r_lib.course.quickstart import write_ablation_report
    from p2r_lib.toyworld.experiment import load_recipe, run_ablation

    recipe = load_recipe(options.recipe, smoke=options.smoke)
    seeds = range(options.seed, options.seed + options.seeds)
    run_ablation(options.output, recipe, seeds=seeds, credits=options.credits, jobs=options.jobs)
    print(write_ablation_report(options.output))


def _pretrain(options: argparse.Namespace) -> None:
    from p2r_lib.toyworld.pretrain import PretrainConfig, pretrain

    pretrain(options.output, PretrainConfig(seed=options.seed), workers=options.workers)
    print(f"The tiny base is in {options.output}")


def _toy_data(options: argparse.Namespace) -> None:
    from p2r_lib.toyworld.dataset import draw_samples, render_clips, save

    for split, count in (("train", options.train), ("heldout", options.heldout)):
        data = draw_samples(count, split=split, seed=options.seed)
        render_clips(data, options.output)
        save(data, options.output, split)
        print(f"{count} {split} questions: {options.output / f'{split}.json'}")


if __name__ == "__main__":
    sys.exit(main())
