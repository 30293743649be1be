"""Push a model and its card to the Hugging Face Hub.

The repository gets the checkpoint (model.safetensors) and a model card (README.md): data, classes,
scores with their intervals, limits, how it was trained. The run has to be tested. Then
cardamage.load_model("user/name") and cardamage predict user/name fetch it.
"""

import argparse

from cardamage.commands.arguments import add_checkpoint, add_runs_dir


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run, by name or path")
    parser.add_argument("repository", metavar="USER/NAME", help="as in jane/car-damage")
    add_checkpoint(parser)
    parser.add_argument(
        "--license", metavar="NAME", help="of the model, by the Hub's name, as in apache-2.0"
    )
    parser.add_argument("--private", action="store_true", help="for those you let in")
    parser.add_argument(
        "--update", action="store_true", help="add a version to a repository that is there"
    )
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.predict.hub import push
    from cardamage.report.card import model_card
    from cardamage.report.load import load_run
    from cardamage.runs.checkpoints import choose_checkpoint
    from cardamage.runs.directory import resolve
    from cardamage.runs.lookup import find_run

    experiment, paths = resolve(find_run(arguments.run, arguments.runs_dir).root)
    select_by = experiment.test.select_by
    epoch, file = choose_checkpoint(paths, arguments.checkpoint, select_by)
    results = load_run(paths, experiment).at(epoch)
    name = arguments.repository
    card = model_card(results, licence=arguments.license, repository=name)
    print(push(name, file, card, private=arguments.private, update=arguments.update))
