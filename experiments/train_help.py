"""``--help`` of train.py, which has too many flags for one page: those of a model alone are on another."""

import argparse

import models


class Help(argparse.Action):
    """``--help``: all but the flags of single models; ``--help all`` has them, ``--help MODEL`` a model's alone."""

    def __init__(self, option_strings, dest):
        what = "show this; also the flags of each model, or those of one model, as --help vae"
        super().__init__(option_strings, dest, "?", "", argparse.SUPPRESS, metavar="all|MODEL", help=what)

    def __call__(self, parser, namespace, value, option_string=None):
        if value not in ("", "all", *models.MODELS):
            parser.error(f"argument --help: invalid choice: {value!r} (choose from all, {', '.join(models.MODELS)})")
        own = {key for name in models.MODELS for key in models.flags(name)}
        for action in parser._actions:
            hidden = value == "" and action.dest in own and action.option_strings[0] != "-l"
            if hidden or (value in models.MODELS and action.dest not in models.flags(value)):
                action.help = argparse.SUPPRESS
        if value in models.MODELS:
            parser.usage = f"{parser.prog} --model {value} [FLAG ...]"
            parser.description = f"{models.MODELS[value].title}. Its own flags; all others: {parser.prog} --help"
        parser.print_help()
        parser.exit()
